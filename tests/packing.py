"""One set of encoded images packed in every way that is read."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

PACKINGS = ("folder", "zip", "tar", "shards", "parquet", "lmdb")


def tar_of(path: Path, members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(files: dict[str, bytes], classes: list[int] | None = None) -> dict[str, bytes]:
    """Return the members that webdataset would write: the image, its class and its caption."""
    members = {}
    for number, (name, data) in enumerate(files.items()):
        stem = name.partition(".")[0]
        members[name] = data
        members[f"{stem}.txt"] = b"a caption"
        if classes is not None:
            members[f"{stem}.cls"] = str(classes[number]).encode()
    return members


def pack(files: dict[str, bytes], how: str, folder: Path) -> str:
    """Pack files, name → bytes, and return what --real takes."""
    folder.mkdir(parents=True)
    if how == "folder":
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return str(folder)
    if how == "zip":
        with zipfile.ZipFile(folder / "set.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return str(folder / "set.zip")
    if how == "tar":
        shuffled = dict(reversed(files.items()))  # the order inside must not matter
        return str(tar_of(folder / "set.tar", samples(shuffled)))
    if how == "shards":
        names, third = list(files), -(-len(files) // 3)
        for shard in range(3):
            part = {name: files[name] for name in names[shard * third : (shard + 1) * third]}
            tar_of(folder / f"{shard:05}.tar", samples(part))
        return str(folder / "{00000..00002}.tar")
    if how == "parquet":
        write_parquet(folder / "train-00000-of-00001.parquet", files)
        return str(folder)
    assert how == "lmdb", how
    return write_lmdb(folder / "set_lmdb", files)


def write_parquet(
    path: Path, files: dict[str, bytes], classes: list[int] | None = None, group: int = 7
) -> Path:
    """Write a table as `datasets` does."""
    import pyarrow
    from pyarrow import parquet

    rows = {"image": [{"bytes": data, "path": name} for name, data in files.items()]}
    features = {"image": {"_type": "Image"}}
    if classes is not None:
        rows["label"] = classes
        features["label"] = {"names": ["a", "b"], "_type": "ClassLabel"}
    table = pyarrow.table(rows)
    noted = json.dumps({"info": {"features": features}})
    table = table.replace_schema_metadata({"huggingface": noted})
    parquet.write_table(table, path, row_group_size=group)
    return path


def write_lmdb(folder: Path, files: dict[str, bytes]) -> str:
    import lmdb

    with (
        lmdb.open(str(folder), map_size=2**26) as database,
        database.begin(write=True) as transaction,
    ):
        for name, data in files.items():
            transaction.put(name.partition(".")[0].encode(), data)
    return str(folder)
