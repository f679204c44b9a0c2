"""Names of folders in buckets (S3, Google Cloud Storage), as a configuration gives them."""

from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode, urlsplit

_KINDS = {"s3": "s3", "gs": "gs", "gcs": "gs"}
_OPTIONS = {"region", "scheme", "endpoint_override"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketUrl:
    """The URL of a folder in a bucket.

    Attributes:
        kind: s3 or gs.
        folder: bucket and path.
        options: `region`, `scheme` and `endpoint_override`, for servers that speak the same protocol. Nothing
            that opens a bucket stands in a URL, since a URL is kept, and shown to Ray.
    """

    kind: str
    folder: str
    options: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, url: str) -> "BucketUrl":
        """Reads a URL.

        Raises:
            ValueError: it is no such URL; the message does not repeat it.
        """
        parts = urlsplit(url)
        options = tuple(parse_qsl(parts.query, keep_blank_values=True))
        is_known = parts.scheme in _KINDS and parts.netloc and not {"@", ":"} & set(parts.netloc)
        if not is_known or parts.fragment or {name for name, _ in options} - _OPTIONS:
            raise ValueError(
                "executor.storage must be s3://bucket/folder or gs://bucket/folder; its only options are "
                f"{', '.join(sorted(_OPTIONS))}, and credentials come from each node's own environment"
            )
        return cls(
            kind=_KINDS[parts.scheme], folder=f"{parts.netloc}{parts.path}".rstrip("/"), options=options
        )

    def __str__(self) -> str:
        """Returns the URL."""
        options = urlencode(self.options)
        return f"{self.kind}://{self.folder}{'?' if options else ''}{options}"

    def below(self, name: str) -> "BucketUrl":
        """Returns the URL of a folder in this one."""
        return replace(self, folder=f"{self.folder}/{name}")
