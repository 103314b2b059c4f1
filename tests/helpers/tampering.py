"""What somebody could do who rewrites a bundle and its manifest."""

from pathlib import Path

from bertd.bundle import file_record, read_manifest, write_manifest


def allow_anything(bundle: Path) -> None:
    """Make the manifest's tolerances so large that nothing exceeds them."""
    manifest = read_manifest(bundle)
    parity = {
        name: one.model_copy(update={"tolerance": 1e9}) for name, one in manifest.parity.items()
    }
    write_manifest(bundle, manifest.model_copy(update={"parity": parity}))


def sign(bundle: Path) -> None:
    """Write the manifest anew for the files as they are now."""
    manifest = read_manifest(bundle)
    files = {name: file_record(bundle / name) for name in manifest.files}
    write_manifest(bundle, manifest.model_copy(update={"files": files}))
