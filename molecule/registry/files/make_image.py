"""An OCI image with one random layer: make_image.py DIRECTORY BYTES. Prints the manifest's digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

OCI = "application/vnd.oci.image"


def put(directory: Path, data: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (directory / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def main(directory: Path, size: int) -> None:
    (directory / "blobs/sha256").mkdir(parents=True)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as layer_file:
        entry = tarfile.TarInfo("random")
        entry.size = size
        layer_file.addfile(entry, io.BytesIO(os.urandom(size)))
    # Compressed, or the copier would do it, and the digest would be another one
    layer = put(directory, gzip.compress(archive.getvalue(), 1), f"{OCI}.layer.v1.tar+gzip")
    difference = hashlib.sha256(archive.getvalue()).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{difference}"]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": put(directory, json.dumps(config).encode(), f"{OCI}.config.v1+json"),
        "layers": [layer],
    }
    entry_of_index = put(directory, json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry_of_index]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    print(entry_of_index["digest"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
