"""What the store has told the kernel to put on the disk before it says that something is stored."""

from __future__ import annotations

from pathlib import Path

from hecaton.store.blobs import FolderBlobs
from tests.syncs import watching


def test_an_upload_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    writer = FolderBlobs(tmp_path / "blobs").writer()
    writer.write(b"content")
    with watching() as syncs:
        sha256 = writer.commit()
    (temporary, content), (folder, _) = syncs.files
    assert content == b"content"
    assert temporary != sha256[2:]
    assert folder == sha256[:2]
