from .export import ParityReport, Precision, export_onnx

__all__ = ["ParityReport", "Precision", "export_onnx"]
