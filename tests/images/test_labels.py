"""Labels: what is a class, whose it is, and that nobody is bothered who needs none."""

import json
import os
import unicodedata
import zipfile

import pytest
from pictures import png

from probe.errors import ImagesError
from probe.images.open import open_images

NAMES = ["a.png", "sub/deep/b.PNG", "ünï çödé/日本.png"]


def make(path, kind, names, labels, place="dataset.json"):
    """Write images and a label file, which may be text or what `labels` are to be."""
    text = labels if isinstance(labels, str) else json.dumps({"labels": labels})
    data = text.encode(errors="surrogateescape")
    members = {**{name: png() for name in names}, **({} if place is None else {place: data})}
    if kind == "zip":
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            for name, body in members.items():
                archive.writestr(name, body)
        return open_images(path.with_suffix(".zip"))
    for name, body in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(body)
    return open_images(path)


@pytest.fixture(params=["folder", "zip"])
def build(request, tmp_path):
    return lambda *given, **options: make(tmp_path / "set", request.param, *given, **options)


def test_numbers(build):
    source = build(NAMES, [["absent.png", 9], [NAMES[2], 0], [NAMES[0], 2], [NAMES[1], 1]])
    assert source.labels == [2, 1, 0] and source.classes is None


def test_one_hot_lists(build):
    lists = [[0, 1, 0], [1.0, 0.0, 0.0], [0, 0, 1.0]]
    source = build(NAMES, [list(pair) for pair in zip(NAMES, lists)])
    assert source.labels == [1, 0, 2] and source.classes == 3


@pytest.mark.parametrize("labels", [None, [], [[name, None] for name in NAMES]])
def test_null_labels_are_none(build, labels):
    source = build(NAMES, labels)
    assert source.labels is None and source.classes is None


def test_without_a_file_there_are_none(build):
    assert build(NAMES, None, place=None).labels is None


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([["a.png", [0.3, 0.7]]], r"the label of a.png, \[0.3, 0.7\], is not one-hot"),
        ([["a.png", [0.01] * 512]], r"a.png, \[0.01, 0.01, 0.01, 0.01, …\], is not one-hot"),
        ([["a.png", [1, 0, 1]]], r"a.png, \[1, 0, 1\], is not one-hot"),
        ([["a.png", [0, 0]]], r"a.png, \[0, 0\], is not one-hot"),
        ([["a.png", []]], r"a.png, \[\], is not one-hot"),
        ([["a.png", [True, False]]], r"a.png, \[.*\], is not one-hot"),
        ([["a.png", ["1", 0]]], r"a.png, \['1', 0\], is not one-hot"),
        ([["a.png", [[1], 0]]], r"is not one-hot"),
        ([["a.png", -1]], r"a.png, -1, is not a class"),
        ([["a.png", 1.5]], r"a.png, 1.5, is not a class"),
        ([["a.png", "1"]], r"a.png, '1', is not a class"),
        ([["a.png", True]], r"a.png, .*, is not a class"),
        ([["a.png", {"x": 1}]], r"a.png, something of type dict, is not a class"),
        ([["a.png", 100_000]], r"a.png, 100000, is not a class"),
        ([["a.png", 1], ["a.png", 1]], r"a.png is listed twice"),
        ([["sub/a.png", 1], ["sub\\a.png", 2]], r"sub/a.png is listed twice"),
        ([["a.png", [1, 0]], ["b.png", [1, 0, 0]]], r"list of b.png has 3 classes, .* a.png has 2"),
        ([["a.png", [1, 0]], ["b.png", 2]], r"b.png is of class 2, and the list of a.png has 2"),
        ([["a.png", 1]], r"1 of 2 images have no label, among them b.png"),
        ([["a.png", 1], ["b.png", None]], r"1 of 2 images have no label, among them b.png"),
        ([["a.png", 1], ["b.png"]], r"entry 1 is not a name and its class"),
        ([["a.png", 1], [["b.png"], 1]], r"entry 1 is not a name and its class"),
        ([["a.png", 1], "b.png"], r"entry 1 is not a name and its class"),
        (["a.png", "b.png"], r"entry 0 is not a name and its class"),
    ],
)
def test_what_is_no_class_is_refused_with_its_name(build, labels, said):
    source = build(["a.png", "b.png"], labels)
    for asked in ("labels", "classes"):
        with pytest.raises(ImagesError, match=rf"dataset\.json: .*{said}"):
            getattr(source, asked)


@pytest.mark.parametrize("digits", [19, 20, 400, 5000])
def test_endless_numbers_are_refused_with_the_name(build, digits):
    source = build(["a.png"], '{"labels": [["a.png", ' + "1" * digits + "]]}")
    with pytest.raises(
        ImagesError, match=r"the label of a\.png, .*1111.*, is not a class"
    ) as caught:
        _ = source.labels
    assert len(str(caught.value)) < 400


OTHER_FILES = [
    "not json", "\udcff", "[]", "3", "[" * 100_000, '{"other": 1}', '{"labels": 3}',
    '{"labels": {}}', '{"images": [], "annotations": []}',
]  # fmt: skip


@pytest.mark.parametrize("text", OTHER_FILES)
def test_the_file_of_another_tool_is_refused_where_labels_are_needed(build, text):
    source = build(["a.png"], text)
    assert source.load([0], 8).indices == [0]
    with pytest.raises(ImagesError, match=r"dataset\.json: not a label file: "):
        _ = source.labels


def test_names_are_matched_however_they_are_spelt(build):
    composed, apart = (unicodedata.normalize(form, "é/ü.png") for form in ("NFC", "NFD"))
    names = [f"1/{composed}", f"2/{apart}", "3\\win.png", "4/unix.png", "5/dot.png"]
    labels = [[f"1/{apart}", 1], [f"2/{composed}", 2], ["3/win.png", 3], ["4\\unix.png", 4],
              ["./5/dot.png", 5]]  # fmt: skip
    assert build(names, labels).labels == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("top", ["set/", "a/b/", "win\\", "é/"])
def test_the_zip_of_a_folder_has_its_labels_below_the_only_folder(build, top):
    names, labels = ["00/x.png", "01/y.png"], [["00/x.png", 3], ["01/y.png", 4]]
    source = build([top + name for name in names], labels, place=f"{top}dataset.json")
    assert source.labels == [3, 4]


def test_a_label_file_below_one_of_several_folders_is_not_meant(build):
    source = build(["a/x.png", "b/y.png"], [["x.png", 1]], place="a/dataset.json")
    assert source.labels is None


def test_the_uppermost_label_file_counts(tmp_path):
    make(tmp_path / "set", "folder", ["a/x.png"], [["x.png", 1]], place="a/dataset.json")
    source = make(tmp_path / "set", "folder", ["a/x.png"], [["a/x.png", 2]])
    assert source.labels == [2]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_reading_a_label_file_is_bounded(tmp_path, kind):
    text = '{"labels": [' + "[[],[]]," * 600_000 + "]}"  # 5 MB, 5 kB in a zip
    source = make(tmp_path / "set", kind, ["a.png"], text)
    with pytest.raises(ImagesError, match=r"5 MiB are too many for the labels of 1 images"):
        _ = source.labels


def test_a_pipe_or_a_device_is_no_label_file(tmp_path):
    for i, make_one in enumerate((os.mkfifo, lambda path: os.symlink("/dev/zero", path))):
        folder = tmp_path / str(i)
        make(folder, "folder", ["a.png"], None, place=None)
        make_one(folder / "dataset.json")  # opened, the pipe would wait for ever
        source = open_images(folder)
        assert source.load([0], 8).indices == [0]
        with pytest.raises(ImagesError, match=r"dataset\.json: not a regular file"):
            _ = source.labels


def test_labels_in_a_damaged_member_are_refused_by_name(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr("dataset.json", b'{"labels": null}')
    path.write_bytes(path.read_bytes().replace(b'{"labels": null}', b'{"labels": NULL}'))
    with pytest.raises(ImagesError, match=r"dataset\.json: damaged zip member"):
        _ = open_images(path).labels
