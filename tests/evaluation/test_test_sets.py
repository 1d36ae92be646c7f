"""Lists of published test sets are read as they are, and bad lines are named."""

import pytest

from ditar_hf.evaluation.test_sets import TEST_SETS, read_test_set


@pytest.fixture
def recordings(tmp_path):
    """Makes files that are there; nothing of them is read."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def write(folder, text, name="list.txt"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_librispeech_pc(recordings):
    folder = recordings("data/4992/41806/4992-41806-0009.flac", "data/4992/23283/4992-23283-0000.flac")
    line = "4992-41806-0009\t4.355\texclaimed Bill Harmon.\t4992-23283-0000\t6.645\tBut the more.\n"
    (item,) = read_test_set("librispeech-pc", write(folder, line), folder / "data")
    assert item.id == "4992-41806-0009_4992-23283-0000"
    assert (item.text, item.prompt_text) == ("But the more.", "exclaimed Bill Harmon.")
    assert item.prompt_audio == folder / "data/4992/41806/4992-41806-0009.flac"
    assert item.target_audio == folder / "data/4992/23283/4992-23283-0000.flac"


@pytest.mark.parametrize("name", ["seed-en", "seed-zh", "librispeech-a"])
def test_seed(recordings, name):
    folder = recordings("prompt-wavs/a.wav", "wavs/one.wav", "real/two.wav")
    text = "one|what a says|prompt-wavs/a.wav|say this\ntwo|what a says|prompt-wavs/a.wav|and this|real/two.wav\n"
    text += "three|what a says|prompt-wavs/a.wav|nobody said this\n"
    items = read_test_set(name, write(folder, text))
    assert [item.id for item in items] == ["one", "two", "three"]
    targets = [folder / "wavs/one.wav", folder / "real/two.wav", None]  # the first by where the set keeps them
    assert [item.target_audio for item in items] == targets
    assert {item.prompt_audio for item in items} == {folder / "prompt-wavs/a.wav"}


def test_a_folder_with_and_without_prompts(recordings):
    folder = recordings("a.wav", "b.wav")
    text = 'id,text,prompt_audio,prompt_text,target_audio\n1,"Say, this",a.wav,what a says,b.wav\n2,Or this,,,\n'
    one, two = read_test_set("folder", write(folder, text))
    assert (one.text, one.prompt_audio, one.prompt_text, one.target_audio) == (
        "Say, this",
        folder / "a.wav",
        "what a says",
        folder / "b.wav",
    )
    assert (two.prompt_audio, two.prompt_text, two.target_audio) == (None, None, None)


def test_sentences(tmp_path):
    items = read_test_set("sentences", write(tmp_path, "Say this.\n\nOr this, | with marks.\n"))
    assert [(item.id, item.text) for item in items] == [("0001", "Say this."), ("0003", "Or this, | with marks.")]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("seed-en", "one|prompt|a.wav\n", "line 1: it has 3 fields"),
        ("seed-en", "one|p|a.wav|t\none|p|a.wav|t\n", "line 2: the id 'one' was there in line 1"),
        ("seed-en", "one|p|missing.wav|t\n", "line 1: there is no recording"),
        ("seed-en", "one|p|a.wav|t|missing.wav\n", "line 1: there is no recording"),
        ("seed-en", "../one|p|a.wav|t\n", "cannot name a file"),
        ("seed-en", "one|p|a.wav| \n", "there is no text to say"),
        ("librispeech-pc", "a b c\n", "line 1: it has 1 fields between '\\\\t' and should have 6"),
        ("folder", "id,words\n1,a\n", "has no column `text`"),
        ("folder", "id,text,text\n1,a,b\n", "has a column twice"),
        ("folder", 'id,"text\n1,a\n', "Mend the line"),
        ("seed-en", "One|p|a.wav|t\none|p|a.wav|t\n", "the id 'one' was there in line 1"),
        ("seed-en", "o" * 201 + "|p|a.wav|t\n", "cannot name a file"),
        ("folder", "id,text,prompt_wav\n1,a,a.wav\n", "has a column 'prompt_wav', which is not known"),
        ("folder", "id,text\n1,a,b\n", "line 2: it has another number of fields"),
        ("folder", "id,text,prompt_audio\n1,a,a.wav\n", "a prompt needs both"),
        ("sentences", "\n\n", "is empty"),
    ],
)
def test_a_bad_line_is_named(recordings, name, text, message):
    folder = recordings("a.wav")
    with pytest.raises(ValueError, match=message):
        read_test_set(name, write(folder, text))


def test_a_list_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(ValueError, match="there is no list"):
        read_test_set("seed-en", tmp_path / "meta.lst")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00|")
    for name in TEST_SETS:
        with pytest.raises(ValueError, match="no text in UTF-8"):
            read_test_set(name, tmp_path / "binary")


def test_an_unknown_set(tmp_path):
    with pytest.raises(ValueError, match="Name one of librispeech-pc"):
        read_test_set("seed", tmp_path)
