# The command line as a container that is not root. Data and runs stay outside of it:
#
#   docker build -t rpsg .
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD":/data rpsg run posts.csv --text-column text
#
# Where your index has several builds of torch, choose the one for processors: --build-arg PIP_INDEX_URL=...
FROM python:3.11-slim-bookworm

ARG PIP_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /opt/rpsg
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-deps -r requirements.lock
COPY src src
RUN pip install --no-deps --no-build-isolation .

# The models' files are made once, here, and read by whoever the container runs as; so are its state folders.
ENV HOME=/home/rpsg XDG_CACHE_HOME=/opt/cache XDG_STATE_HOME=/data/.rpsg-state
RUN useradd --create-home rpsg && mkdir -p /opt/cache /data && chown rpsg /opt/cache /data
USER rpsg
RUN rpsg models fetch && chmod -R a+rX /opt/cache

WORKDIR /data
VOLUME /data
ENTRYPOINT ["rpsg"]
CMD ["--help"]
