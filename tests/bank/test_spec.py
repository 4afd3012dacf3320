"""The bank file: what is read, and how each mistake is named with its line."""

import pytest

from probe.bank.file import load_bank
from probe.errors import BankError, UsageError

GOOD = """\
- name: one
  source: timm
  model: resnet18
  weights: {hub: timm/resnet18.a1_in1k}
  input: 224
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  task: classification
  data: ImageNet-1k
  license: Apache-2.0
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "bank.yaml"
        path.write_text(text)
        return path

    return write


def test_the_shipped_bank_is_valid_and_complete():
    bank = load_bank()
    roles = [spec.role for spec in bank.specs]
    assert len(bank.specs) >= 20
    assert roles.count("evaluator") == 1 and roles.count("control") >= 4
    here = [s for s in bank.specs if s.weights.kind == "package"]
    assert len(here) >= 4 and all(s.sha256 for s in here)
    assert {s.source for s in bank.specs} == {
        "timm",
        "open_clip",
        "torchvision",
        "swin",
        "antialiased",
    }
    assert all(s.license and s.task and s.data for s in bank.specs)


def test_a_good_entry(write):
    (spec,) = load_bank(str(write(GOOD))).specs
    assert spec.name == "one" and spec.weights.kind == "hub" and spec.role == "candidate"
    assert spec.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("input: 224", "inptu: 224", 5, "unknown key 'inptu'. Did you mean 'input'"),
        ("input: 224", "input: big", 5, "input"),
        ("input: 224", "input: 0", 5, "greater than or equal to 16"),
        ("mean: [0.485, 0.456, 0.406]", "mean: [0.5, 0.5]", 6, "mean"),
        ("std: [0.229, 0.224, 0.225]", "std: [0, 1, 1]", 7, "above 0"),
        ("source: timm", "source: tim", 2, "'timm'"),
        ("weights: {hub:", "weights: {hbu:", 4, "unknown key 'hbu'. Did you mean 'hub'"),
        ("weights: {hub: timm/resnet18.a1_in1k}", "weights: {}", 4, "name exactly one of"),
        ("weights: {hub: timm/resnet18.a1_in1k}", "weights: {random: 0}", 1, "'control'"),
        ("  license: Apache-2.0\n", "", 1, "the key 'license' is missing"),
        ("  license: Apache-2.0\n", "  license: MIT\n  sha256: abc\n", 11, "sha256"),
        ("  license: Apache-2.0\n", "  license: MIT\n  role: judge\n", 11, "evaluator"),
        ("  license: Apache-2.0\n", "  license: MIT\n  license: MIT\n", 11, "appears twice"),
        ("name: one", "name: ../one", 1, "name"),
        ("  license: Apache-2.0\n", "  license: MIT\n  keys: efficient-lite\n", 11, "Did you mean"),
        (
            "  license: Apache-2.0\n",
            "  license: MIT\n  keys: [{pattern: '('}]\n",
            11,
            "unterminated",
        ),
        (
            "  license: Apache-2.0\n",
            "  license: MIT\n  keys: [{patern: a}]\n",
            11,
            "mean 'pattern'",
        ),
        ("  license: Apache-2.0\n", "  license: MIT\n  taps: [1.5]\n", 11, "block indices"),
        (
            "  license: Apache-2.0\n",
            "  license: MIT\n  args: {checkpoint_path: x}\n",
            1,
            "not the bank's to set",
        ),
        (
            "  license: Apache-2.0\n",
            "  license: MIT\n  args: {act_layer: ../x}\n",
            1,
            "a word, or a list",
        ),
        ("  license: Apache-2.0\n", "  license: MIT\n  args: {depth: 10001}\n", 1, "at most 10000"),
        ("  license: Apache-2.0\n", "  license: MIT\n  args: {a: [.nan]}\n", 1, "at most 10000"),
        ("license: Apache-2.0", "license: 2.0", 10, "put it in quotes"),
        ("mean: [0.485, 0.456, 0.406]", "mean: [123, 116, 103]", 6, "on the [0, 1] scale"),
        ("model: resnet18", "model: hf-hub:me/mine", 3, "an architecture's name"),
        ("{hub: timm/resnet18.a1_in1k}", "{file: a, hub: b, hub: c}", 4, "appears twice"),
        ("{hub: timm/resnet18.a1_in1k}", "hub", 4, "a mapping of keys"),
        ("model: resnet18", "model: [resnet18", 4, "not valid YAML"),
        ("model: resnet18", "model: !!python/object/apply:os.system [x]", 1, "not valid YAML"),
    ],
)
def test_every_mistake_is_named_with_its_line(write, old, new, line, words):
    assert old in GOOD
    path = write(GOOD.replace(old, new))
    with pytest.raises(BankError) as caught:
        load_bank(path)
    message = str(caught.value)
    assert words in message, message
    assert f"bank.yaml:{line}:" in message or "python" in new, message


def test_all_mistakes_are_reported_at_once(write):
    text = GOOD + GOOD.replace("input: 224", "input: x").replace("source: timm", "source: y")
    with pytest.raises(BankError) as caught:
        load_bank(write(text))
    lines = str(caught.value).splitlines()
    assert [line.split("bank.yaml:")[1].split(":")[0] for line in lines] == ["11", "12", "15"]


def test_a_name_that_is_taken(write):
    with pytest.raises(BankError, match=r"bank.yaml:11: the name 'one' is already taken on line 1"):
        load_bank(write(GOOD + GOOD))


def test_a_mistake_that_an_entry_inherits_is_named_where_it_stands(write):
    text = GOOD.replace("- name: one", "- &one\n  name: one").replace("input: 224", "input: 0")
    with pytest.raises(BankError) as caught:
        load_bank(write(f"{text}- <<: *one\n  name: two\n"))
    first, second = str(caught.value).splitlines()
    assert "bank.yaml:6: one: input" in first and "bank.yaml:6: two: input" in second


def test_there_is_one_evaluator(write):
    judge = GOOD + "  role: evaluator\n"
    bank = load_bank(write(judge + GOOD.replace("one", "two")))
    assert bank.evaluator is bank.specs[0]
    with pytest.raises(BankError, match=r"bank.yaml:12: two: the evaluator is already 'one'"):
        load_bank(write(judge + judge.replace("one", "two")))


def test_files_are_looked_for_beside_the_bank(write, tmp_path):
    (spec,) = load_bank(write(GOOD.replace("{hub: timm/resnet18.a1_in1k}", "{file: w.pth}"))).specs
    assert spec.weights.file == str(tmp_path / "w.pth")


def test_only_timms_hub_entries_do_without_an_input(write):
    short = GOOD.replace("  input: 224\n", "")
    assert load_bank(write(short)).specs[0].input is None
    with pytest.raises(BankError, match="the key 'input' is missing"):
        load_bank(write(short.replace("{hub: timm/resnet18.a1_in1k}", "{file: w.pth}")))


@pytest.mark.parametrize("text", ["", "a: 1", "[]", "- 3", "- [1]"])
def test_files_that_are_no_bank(write, text):
    with pytest.raises(BankError, match="bank.yaml"):
        load_bank(write(text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BankError, match="cannot be read"):
        load_bank(tmp_path / "gone.yaml")


def test_selection_by_name_and_pattern():
    bank = load_bank()
    assert [s.name for s in bank.select(["mobilenetv2"])] == ["mobilenetv2"]
    assert len(bank.select(["random-*"])) == 6
    with pytest.raises(UsageError, match="Did you mean 'mobilenetv2'"):
        bank.select(["mobilnetv2"])


def test_bank_commands(cli, tmp_path, write):
    listed = cli("bank", "list")
    assert listed.code == 0 and "dino-vit-b16" in listed.out
    shown = cli("bank", "show", "clip-vit-b32")
    assert "hub: timm/vit_base_patch32_clip_224.openai" in shown.out and "missing:" in shown.out
    lent = write(GOOD.replace("  input: 224\n", ""))
    assert "input: 224" in cli("bank", "show", "one", "--bank", lent).out  # timm knows
    checked = cli("bank", "check", "--backbones", "random-resnet18#0,dino-vit-b16")
    assert checked.code == 3
    assert "random-resnet18#0: ok, 512 features" in checked.out
    assert "dino-vit-b16: its weights are not on this machine" in checked.out
    assert cli("bank", "show", "nope").code == 2
    wrong = write(GOOD.replace("input", "inptu"))
    assert "bank.yaml:5" in cli("bank", "list", "--bank", wrong).err
