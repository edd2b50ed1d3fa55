"""A folder as people have it, made by real writers: some 200 files of every kind, in several languages, some of them
broken; and what must be read of it, and what not, and why.

`build_folder(root)` writes it and returns `Expected`. Reading it is proved in `test_folder_of_everything.py`; tests of
cutting, indexing and looking at documents use it too.
"""

# ruff: noqa: E501
from __future__ import annotations

import json
import mailbox
import os
import zipfile
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

LANGUAGES = {
    "en": ("Bees", "Bees make honey in the hive.", "A colony holds up to sixty thousand workers and one queen."),
    "de": ("Bienen", "Die Bienen machen Honig im Bienenstock.", "Königinnen können fünf Jahre alt werden, größere Völker überwintern besser."),
    "fr": ("Abeilles", "Les abeilles font le miel dans la ruche.", "L'été, une ouvrière vit à peine six semaines, après quoi elle est remplacée."),
    "es": ("Abejas", "Las abejas hacen miel en la colmena.", "¿Cuántas flores visita una abeja cada mañana? El niño contó más de cien."),
    "ru": ("Пчёлы", "Пчёлы делают мёд в улье.", "Зимой семья собирается в клуб и греет матку, которая сидит в середине."),
    "zh": ("蜜蜂", "蜜蜂在蜂巢里酿造蜂蜜。", "一个蜂群有一只蜂王和几万只工蜂。冬天它们聚在一起取暖。"),
    "ja": ("蜜蜂", "蜜蜂は巣箱で蜂蜜を作ります。", "冬になると、働き蜂は女王蜂のまわりに集まって暖め合います。"),
    "ko": ("꿀벌", "꿀벌은 벌집에서 꿀을 만듭니다.", "겨울에는 일벌들이 여왕벌 주위에 모여 서로를 따뜻하게 합니다."),
    "ar": ("النحل", "النحل يصنع العسل في الخلية.", "تعيش الملكة عدة سنوات وتضع آلاف البيض كل يوم."),
    "pl": ("Pszczoły", "Pszczoły robią miód w ulu.", "Zimą robotnice ogrzewają królową, siedząc blisko siebie; wiosną znów wylatują."),
}  # fmt: skip
"""Language -> a title, a first sentence, a second one."""

ENCODINGS = {
    "cp1252": "fr", "latin-1": "de", "cp1250": "pl", "cp1251": "ru", "koi8-r": "ru", "cp866": "ru", "shift_jis": "ja",
    "euc_jp": "ja", "iso2022_jp": "ja", "gb18030": "zh", "big5": "zh", "euc_kr": "ko", "cp1256": "ar", "utf-16": "zh",
    "utf-16-le": "ru", "utf-16-be": "en", "utf-32": "ja", "utf-8-sig": "fr",
}  # fmt: skip

CODE = {
    "py": 'def honey(flowers):\n    """How much honey so many flowers give."""\n    return flowers * 0.1\n\n\nclass Hive:\n    pass\n',
    "js": "export function honey(flowers) {\n  return flowers * 0.1;\n}\n\nconst hive = new Map();\n",
    "ts": "interface Hive { bees: number }\n\nexport const honey = (hive: Hive): number => hive.bees * 0.1;\n",
    "java": "class Hive {\n  // makes honey\n  int honey() { return 1; }\n}\n",
    "c": "#include <stdio.h>\n\nint main(void) {\n  puts(\"honey\");\n}\n",
    "cpp": "#include <string>\n\nstd::string honey() { return \"honey\"; }\n",
    "go": "package hive\n\nfunc Honey() string { return \"honey\" }\n",
    "rs": "fn honey() -> &'static str {\n    \"honey\"\n}\n",
    "rb": "def honey\n  'honey'\nend\n",
    "php": "<?php\nfunction honey() { return 'honey'; }\n",
    "sh": "#!/bin/sh\necho honey\n",
    "sql": "SELECT honey FROM hives WHERE bees > 1000;\n",
    "yaml": "hive:\n  product: honey\n",
    "toml": "[hive]\nproduct = 'honey'\n",
    "ini": "[hive]\nproduct=honey\n",
    "xml": "<?xml version='1.0'?>\n<hive><product>honey</product></hive>\n",
    "css": ".hive { content: 'honey'; }\n",
    "tex": "\\section{Bees}\nThey make honey.\n",
    "json": '{"hive": {"product": "honey"}}\n',
}  # fmt: skip


@dataclass(frozen=True)
class Readable:
    """What must be found in a file that is read."""

    text: str
    """Stands in one of its blocks."""
    headings: tuple[str, ...] = ()
    """Of that block."""
    page: str | None = None
    absent: str | None = None
    """Stands in none of them."""
    kind: str | None = None


@dataclass
class Expected:
    """What reading the folder must give; paths are below it, with slashes."""

    read: dict[str, list[Readable]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """Files of rows -> how many of them are documents."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Path -> reason."""
    left_out: dict[str, int] = field(default_factory=dict)
    encodings: dict[str, str] = field(default_factory=dict)
    """Path -> the encoding its text is in, if not UTF-8."""

    @property
    def files(self) -> int:
        """How many files are read."""
        return len(self.read) + len(self.rows)


def build_folder(root: Path) -> Expected:
    """Write the folder into `root`, which is made if it is not there."""
    root.mkdir(parents=True, exist_ok=True)
    expected = Expected()
    for build in (
        _texts,
        _encoded,
        _markdown,
        _html,
        _code,
        _pdfs,
        _office,
        _books,
        _notebooks,
        _mails,
        _rows,
        _unread,
    ):
        build(_Writer(root, expected))
    _passed_over(_Writer(root, expected))
    return expected


@dataclass(frozen=True)
class _Writer:
    root: Path
    expected: Expected

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: str | bytes, *readables: Readable) -> Path:
        path = self.path(name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if readables:
            self.expected.read[name] = list(readables)
        return path

    def reads(self, name: str, *readables: Readable) -> None:
        self.expected.read[name] = list(readables)

    def skips(self, name: str, reason: str, content: str | bytes | None = None) -> None:
        if content is not None:
            self.write(name, content)
        self.expected.skipped[name] = reason


def _texts(to: _Writer) -> None:
    for language, (title, first, second) in LANGUAGES.items():
        to.write(f"texts/{language}/notes.txt", f"{title}\n\n{first}\n{second}\n", Readable(first))
        to.write(f"texts/{language}/README", f"{first} {second}\n", Readable(second))
        to.write(f"texts/{language}/{title} 1.TXT", f"{second}\r\n\r\n{first}\r\n", Readable(second))
    log = "".join(f"2026-01-{day:02} 10:00:00 INFO hive {day} gave {day} kg of honey\n" for day in range(1, 29))
    to.write("texts/server.log", log, Readable("hive 28 gave"))
    to.write("texts/one line.txt", "honey " * 30_000, Readable("honey honey"))
    to.write(
        "texts/guide.rst",
        "Bees\n====\n\nText.\n\nHives\n-----\n\nHives hold honey.\n",
        Readable("Hives hold honey.", ("Bees", "Hives")),
    )
    to.write(
        "texts/no ending but html",
        "<!DOCTYPE html><html><body><h1>Bees</h1><p>Honey.</p></body></html>",
        Readable("Honey.", ("Bees",)),
    )


def _encoded(to: _Writer) -> None:
    for encoding, language in ENCODINGS.items():
        text = " ".join(LANGUAGES[language][1:])
        if encoding == "big5":
            text = "這是一段中文文字，關於蜜蜂和蜂蜜。臺北是一座城市。"
        name = f"encodings/{encoding}.txt"
        to.write(name, text.encode(encoding), Readable(text))
        if encoding != "utf-8-sig":
            to.expected.encodings[name] = encoding
    to.write(
        "encodings/some bad bytes.txt",
        "Größe zählt für Bären und Königinnen. ".encode() * 20 + b"\xff\xfe end",
        Readable("Größe zählt"),
    )
    to.expected.encodings["encodings/some bad bytes.txt"] = "utf-8, with replacements"


def _markdown(to: _Writer) -> None:
    for language, (title, first, second) in LANGUAGES.items():
        text = f"# {title}\n\n{first}\n\n## 2. {title}\n\n{second}\n"
        to.write(f"markdown/{language}.md", text, Readable(first, (title,)), Readable(second, (title, f"2. {title}")))
        to.write(f"markdown/deep/er/{language}.markdown", text, Readable(second, (title, f"2. {title}")))
    for language, (title, first, second) in LANGUAGES.items():
        faq = f"# FAQ\n\n## {title}?\n\n{first}\n\n## {second}?\n\n- {first}\n- {second}\n"
        to.write(f"markdown/faq/{language}.md", faq, Readable(first, ("FAQ", f"{title}?")))
    to.write("markdown/docs.md", "# Bees\n\n```python\n# no heading\nhoney = 1\n```\n\nAfter.\n", Readable("honey = 1"))


def _html(to: _Writer) -> None:
    for language, (title, first, second) in LANGUAGES.items():
        page = (
            f"<!DOCTYPE html><html lang={language}><head><meta charset='utf-8'><title>{title}!</title>"
            f"<style>p {{ color: red }}</style></head><body><nav><a href='/'>menu menu</a></nav><main><h1>{title}</h1>"
            f"<p>{first}</p><h2>2<a href='#2'>¶</a></h2><p><a href='x'>{second}</a></p><script>var secret;</script>"
            "<table><tr><th>hive</th><th>honey</th></tr><tr><td>1</td><td>20 kg</td></tr></table>"
            "<ul><li>one</li><li>two</li></ul><pre>code  here\n  there</pre></main><footer>imprint</footer></body></html>"
        )
        readables = (
            Readable(first, (title,), absent="menu"),
            Readable(second, (title, "2"), absent="secret"),
            Readable("| 1 | 20 kg |", (title, "2"), kind="table"),
            Readable("code  here\n  there", kind="code"),
        )
        to.write(f"html/{language}.html", page, *readables)
    to.write(
        "html/latin.htm",
        "<meta charset=iso-8859-1><p>Das Völkchen wärmt sich.".encode("cp1252"),
        Readable("Völkchen wärmt"),
    )
    to.write(
        "html/open tags.html",
        "<h1>Bees<p>One\nline.<p>Two.<br>Three.<ul><li>a<li>b",
        Readable("Two.\nThree."),
        Readable("One line.", ("Bees",)),
        Readable("- b", kind="item"),
    )
    to.write(
        "html/open table.html", "<table><tr><td>bees<td>honey<tr><td>1", Readable("| bees | honey |", kind="table")
    )
    to.write("html/deep.html", "<div>" * 20_000 + "deep honey" + "</div>" * 20_000, Readable("deep honey"))


def _code(to: _Writer) -> None:
    for ending, content in CODE.items():
        to.write(f"code/hive.{ending}", content, Readable("oney", kind="code"))
    to.write("code/Makefile", "honey:\n\techo honey\n", Readable("echo honey", kind="code"))
    to.write("code/Dockerfile", "FROM scratch\n# honey\n", Readable("honey", kind="code"))


def pdf(pages: list[str], *, password: str | None = None, owner: str = "owner", sections: bool = False) -> bytes:
    """A PDF of these pages by fpdf2, with an outline if `sections`."""
    from fpdf import FPDF
    from fpdf.enums import AccessPermission

    made = FPDF()
    if password is not None:
        made.set_encryption(owner_password=owner, user_password=password, permissions=AccessPermission.all())
    made.set_font("Helvetica", size=12)
    for number, text in enumerate(pages, 1):
        made.add_page()
        if sections:
            made.start_section(f"Chapter {number}")
        made.multi_cell(0, 8, text)
    return bytes(made.output())


def picture_pdf() -> bytes:
    """A PDF whose only page is a picture, as a scanner makes it."""
    from fpdf import FPDF
    from PIL import Image

    made = FPDF()
    made.add_page()
    made.image(Image.new("RGB", (60, 60), "gray"), w=100)
    return bytes(made.output())


def _pdfs(to: _Writer) -> None:
    western = {language: LANGUAGES[language] for language in ("en", "de", "fr", "es")}
    for language, (title, first, second) in western.items():
        pages = [f"{title}\n{first}", second]
        to.write(f"pdf/{language}.pdf", pdf(pages), Readable(first, page="1"), Readable(second, page="2"))
    chapters = [
        f"The hive book\nChapter {n}\nIn year {n} the bees of hive {n * 7} were counted again.\npage {n} of 9"
        for n in range(1, 10)
    ]
    to.write(
        "pdf/book.pdf",
        pdf(chapters, sections=True),
        Readable("the bees of hive 35", ("Chapter 5",), "5", absent="The hive book"),
        Readable("the bees of hive 63", ("Chapter 9",), "9", absent="of 9"),
    )
    to.write(
        "pdf/opened by anybody.pdf",
        pdf(["Protected from changes, not from readers."], password=""),
        Readable("not from readers", page="1"),
    )
    to.write("pdf/under another name.txt", pdf(["A PDF in disguise."]), Readable("A PDF in disguise.", page="1"))
    hyphens = "The bees are put into winter quar-\nters, where they stay."
    to.write("pdf/hyphens.pdf", pdf([hyphens]), Readable("winter quarters, where"))
    to.skips("pdf/secret.pdf", "encrypted", pdf(["Secret."], password="hunter2"))
    to.skips("pdf/scanned.pdf", "no text", picture_pdf())
    to.skips("pdf/cut off.pdf", "damaged", b"%PDF-1.7\n1 0 obj\n<< /Type")
    to.skips("pdf/no pdf.pdf", "damaged", "just words")
    to.skips("pdf/empty.pdf", "empty", b"")


def _office(to: _Writer) -> None:
    for language, texts in LANGUAGES.items():
        to.write(f"office/{language}.docx", docx(texts), *_docx_readables(texts))
    for language in ("en", "de", "zh", "ru"):
        title, first, second = LANGUAGES[language]
        to.write(
            f"office/{language}.pptx",
            pptx((title, first, second)),
            Readable(first, (title,), "1"),
            Readable(second, (f"{title} 2",), "2"),
            Readable("| hive | honey |", (f"{title} 2",), "2", kind="table"),
            Readable("a note", page="2"),
        )
        to.write(
            f"office/{language}.xlsx",
            xlsx((title, first)),
            Readable(first, page=title, kind="table"),
            Readable("| 40 |", page="more"),
        )
        to.write(f"office/{language}.odt", odt((title, first, second)), Readable(first, (title,)), Readable("- item"))
        to.write(f"office/{language}.rtf", rtf(first), Readable(first))
    good = docx(LANGUAGES["en"])
    to.skips("office/cut off.docx", "damaged", good[: len(good) // 2])
    to.skips("office/no docx.docx", "damaged", b"words")
    to.skips("office/protected.docx", "encrypted", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000))
    to.skips("office/old.doc", "no reader", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000))
    to.skips("office/bomb.docx", "too large", bomb("word/document.xml"))
    to.skips("office/bomb.xlsx", "too large", bomb("xl/workbook.xml"))
    to.skips("office/empty.docx", "empty", b"")
    to.skips("office/nothing in it.docx", "empty", docx(None))


def docx(texts: tuple[str, str, str] | None) -> bytes:
    """A document of Word by python-docx."""
    import io

    from docx import Document

    document = Document()
    if texts is not None:
        title, first, second = texts
        document.core_properties.title = f"{title}!"
        document.add_heading(title, 1)
        document.add_paragraph(first)
        document.add_heading("2", 2)
        document.add_paragraph(second)
        document.add_paragraph("item", style="List Bullet")
        table = document.add_table(2, 2)
        for place, text in zip(((0, 0), (0, 1), (1, 0), (1, 1)), ("hive", "honey", "1", "20 | 30 kg"), strict=True):
            table.cell(*place).text = text
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def _docx_readables(texts: tuple[str, str, str]) -> tuple[Readable, ...]:
    title, first, second = texts
    return (
        Readable(first, (title,)),
        Readable(second, (title, "2")),
        Readable("- item", (title, "2"), kind="item"),
        Readable("| 1 | 20 \\| 30 kg |", (title, "2"), kind="table"),
    )


def pptx(texts: tuple[str, str, str]) -> bytes:
    """Two slides by python-pptx: title and text; title, text, table and notes."""
    import io

    from pptx import Presentation
    from pptx.util import Inches

    made = Presentation()
    title, first, second = texts
    for number, (heading, text) in enumerate(((title, first), (f"{title} 2", second))):
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text = heading
        slide.placeholders[1].text = text
        if number:
            table = slide.shapes.add_table(2, 2, Inches(1), Inches(4), Inches(4), Inches(1)).table
            for place, cell in zip(((0, 0), (0, 1), (1, 0), (1, 1)), ("hive", "honey", "1", "20"), strict=True):
                table.cell(*place).text = cell
            slide.notes_slide.notes_text_frame.text = "a note for the speaker"
    written = io.BytesIO()
    made.save(written)
    return written.getvalue()


def xlsx(texts: tuple[str, str]) -> bytes:
    """A workbook of two sheets by openpyxl."""
    import io

    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.title = texts[0]
    sheet.append(["hive", "what"])
    sheet.append([1, texts[1]])
    more = book.create_sheet("more")
    more.append(["hive", "kg"])
    for hive in range(1, 100):
        more.append([hive, 40.0])
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


def zipped(parts: dict[str, str | bytes], first: str | None = None) -> bytes:
    """A zip file; the part `first` is stored uncompressed at its start."""
    import io

    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name == first else zipfile.ZIP_DEFLATED)
    return written.getvalue()


def bomb(part: str, size: int = 1 << 24) -> bytes:
    """A small zip file with a part that unpacks a thousand times."""
    return zipped({"[Content_Types].xml": "<Types/>", part: b" " * size})


def odt(texts: tuple[str, str, str]) -> bytes:
    """A document as LibreOffice writes it."""
    title, first, second = texts
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table")
    )
    content = (
        f'<?xml version="1.0"?><office:document-content {names}><office:body><office:text>'
        f'<text:h text:outline-level="1">{title}</text:h><text:p>{first}</text:p>'
        "<text:list><text:list-item><text:p>item</text:p></text:list-item></text:list>"
        f"<text:p>{second[:5]}<text:span>{second[5:]}</text:span></text:p></office:text></office:body></office:document-content>"
    )
    mimetype = "application/vnd.oasis.opendocument.text"
    return zipped({"mimetype": mimetype, "content.xml": content}, "mimetype")


def rtf(text: str) -> bytes:
    """Rich text as word processors write it."""
    escaped = "".join(c if c.isascii() else f"\\u{ord(c)}?" for c in text)
    return f"{{\\rtf1\\ansi\\ansicpg1252{{\\fonttbl{{\\f0 Times;}}}}\\f0\\fs24 {escaped}\\par}}".encode("ascii")


def epub(texts: tuple[str, str, str]) -> bytes:
    """A book of two chapters, whose files are named against the order of reading."""
    title, first, second = texts
    chapter = "<?xml version='1.0' encoding='utf-8'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title>x</title></head><body><h1>{}</h1><p>{}</p></body></html>"
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{title}</dc:title><dc:creator>A. Beekeeper</dc:creator></metadata><manifest>"
        '<item id="b" href="text/b%20b.xhtml" media-type="application/xhtml+xml"/>'
        '<item id="a" href="text/a.xhtml" media-type="application/xhtml+xml"/></manifest>'
        '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>'
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
        '<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OEBPS/content.opf": package,
            "OEBPS/text/b b.xhtml": chapter.format(title, first),
            "OEBPS/text/a.xhtml": chapter.format("2", second),
        },
        "mimetype",
    )


def _books(to: _Writer) -> None:
    for language in ("en", "fr", "zh", "ru"):
        title, first, second = LANGUAGES[language]
        to.write(
            f"books/{language}.epub", epub((title, first, second)), Readable(first, (title,)), Readable(second, ("2",))
        )
    to.skips("books/no book.epub", "damaged", zipped({"mimetype": "application/epub+zip", "x": "y"}, "mimetype"))
    to.skips(
        "books/bomb.epub",
        "too large",
        zipped({"mimetype": "application/epub+zip", "a.xhtml": bytes(1 << 24)}, "mimetype"),
    )


def notebook(title: str, text: str) -> str:
    """A notebook with a heading, a text in another cell, code, its output and a picture."""
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": [f"# {title}\n"]},
        {"cell_type": "markdown", "metadata": {}, "source": [text]},
        {
            "cell_type": "code", "metadata": {}, "execution_count": 1, "source": ["# honey\n", "print(20)\n"],
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["20 kg\n"]},
                {"output_type": "display_data", "metadata": {}, "data": {"image/png": "aGk=" * 100}},
            ],
        },
    ]  # fmt: skip
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def _notebooks(to: _Writer) -> None:
    for language in ("en", "es", "ja", "ar"):
        title, first, _ = LANGUAGES[language]
        to.write(
            f"notebooks/{language}.ipynb",
            notebook(title, first),
            Readable(first, (title,), absent="aGk="),
            Readable("print(20)", (title,), kind="code"),
            Readable("20 kg", (title,)),
        )
    to.skips("notebooks/broken.ipynb", "damaged", '{"cells": [')


def mail(title: str, text: str, *, html: bool = False) -> EmailMessage:
    """A mail, with an attachment if it is HTML."""
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = title, "Ann <ann@example.org>", "bob@example.org"
    if html:
        message.set_content(f"<html><body><p>{text}</p></body></html>", subtype="html")
        message.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="plan.pdf")
    else:
        message.set_content(text)
    return message


def _mails(to: _Writer) -> None:
    for language in ("en", "de", "ru", "zh"):
        title, first, second = LANGUAGES[language]
        to.write(
            f"mails/{language}.eml", mail(title, first).as_bytes(), Readable(first, (title,)), Readable("From: Ann")
        )
        to.write(
            f"mails/{language}-2.eml",
            mail(title, second, html=True).as_bytes(),
            Readable(second, (title,)),
            Readable("plan.pdf"),
        )
    box = mailbox.mbox(str(to.path("mails/box.mbox")))
    for title, first, _ in LANGUAGES.values():
        box.add(mail(title, first))
    box.close()
    to.reads(
        "mails/box.mbox",
        *(Readable(first, (title,), str(n)) for n, (title, first, _) in enumerate(LANGUAGES.values(), 1)),
    )


def _rows(to: _Writer) -> None:
    rows = [{"id": f"row-{language}", "text": " ".join(texts)} for language, texts in LANGUAGES.items()]
    to.write("rows/corpus.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    to.expected.rows["rows/corpus.jsonl"] = len(rows)
    to.write("rows/hives.csv", "hive,honey\n1,20 kg\n2,30 kg\n", Readable("| 2 | 30 kg |", kind="table"))
    to.write("rows/hives.tsv", "hive\thoney\n1\t20 kg\n", Readable("| 1 | 20 kg |", kind="table"))


def _unread(to: _Writer) -> None:
    to.skips("other/photo.png", "no reader", b"\x89PNG\r\n\x1a\n" + bytes(100))
    to.skips("other/drawing.svg", "no reader", "<svg xmlns='http://www.w3.org/2000/svg'/>")
    to.skips("other/photo.jpg", "no reader", b"\xff\xd8\xff\xe0" + bytes(100))
    to.skips("other/sound.mp3", "no reader", b"ID3" + bytes(100))
    to.skips("other/film.mp4", "no reader", b"\0\0\0\x18ftypmp42" + bytes(100))
    to.skips("other/archive.zip", "no reader", zipped({"a.txt": "text"}))
    to.skips("other/photo.txt", "no reader", b"\x89PNG\r\n\x1a\n" + bytes(100))
    to.skips("other/random.txt", "no reader", bytes(range(256)) * 8)
    to.skips("other/program", "no reader", b"\x7fELF" + bytes(100))
    to.skips("other/data.bin", "no reader", bytes(range(32)) * 100)
    to.skips("other/empty.md", "empty", b"")
    to.skips("other/blank.txt", "empty", " \n\n\t\n")


def _passed_over(to: _Writer) -> None:
    to.write(".git/config", "[core]\n")
    to.write("code/.env", "KEY=secret\n")
    to.write("code/node_modules/x/README.md", "# not ours\n")
    to.write("code/__pycache__/x.txt", "x\n")
    to.write("code/env/pyvenv.cfg", "home = x\n")
    to.write("code/env/lib/x.py", "x = 1\n")
    to.write("office/~$en.docx", b"lock")
    to.write("html/all.min.js", "var honey")
    to.expected.left_out.update(
        {"hidden": 2, "node_modules": 1, "__pycache__": 1, "virtual environments": 1, "files of programs": 2}
    )
    if hasattr(os, "symlink"):
        (to.root / "link.md").symlink_to("markdown/en.md")
        (to.root / "loop").symlink_to(".")
        (to.root / "nowhere.txt").symlink_to("gone.txt")
        to.expected.left_out["links to files that are read anyway"] = 2
        to.skips("nowhere.txt", "link")
