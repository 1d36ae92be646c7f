"""
`ditar demo` in a browser: type, click, and a result that plays; what is wrong is said on the page.

Needs Chromium and its driver, on Debian `apt-get install chromium chromium-driver`. Where they are absent the tests
are skipped, but with DITAR_REQUIRE_BROWSER=1 in the environment they fail, as in `.ci/run`.
"""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import torch

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer

RATE = 24_000
TEXT = "Good morning."
WAIT_SECONDS = 120
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --window-size=1280,1600 --autoplay-policy=no-user-gesture-required"
    # a microphone that beeps
    " --use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
).split()
# `ditar`, where nothing outside this machine can be reached; who tries is noted
OFFLINE_DITAR = """
import signal, socket, sys

# a shell has what it starts in the background ignore Ctrl+C
signal.signal(signal.SIGINT, signal.default_int_handler)

def note(address):
    host = address[0] if isinstance(address, tuple) else None
    if host not in (None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        print("OUTSIDE", address, flush=True)
        raise OSError("there is no network here")

def guarded(function):
    def call(self, address, *rest):
        note(address)
        return function(self, address, *rest)
    return call

class Guarded(socket.socket):
    connect, connect_ex = guarded(socket.socket.connect), guarded(socket.socket.connect_ex)

lookup = socket.getaddrinfo
def getaddrinfo(host, *rest, **options):
    note((host if isinstance(host, str | None) else host.decode(),))
    return lookup(host, *rest, **options)

socket.socket, socket.getaddrinfo = Guarded, getaddrinfo
from ditar_hf.cli import app
app()
"""


def needed(path: str | None, package: str) -> str:
    """The path of a program; without it the test is skipped, or fails where a browser is required."""
    if path is None:
        reason = f"there is no {package}: apt-get install chromium chromium-driver"
        pytest.fail(reason) if os.environ.get("DITAR_REQUIRE_BROWSER") == "1" else pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def programs():
    return needed(shutil.which("chromium"), "chromium"), needed(shutil.which("chromedriver"), "chromium-driver")


@pytest.fixture(scope="module")
def started():
    """What is started once: the server under `process`, to be stopped at the end."""
    values = {}
    yield values
    if "process" in values:
        values["process"].kill()
        values["process"].wait()


@pytest.fixture
def server(programs, started, save_tiny, tmp_path_factory):
    """`ditar demo` of a tiny model in its own process: `url`, `log`, `folder` of the model, `cache` of the page."""
    if not started or started["process"].poll() is not None:
        folder = save_tiny(tmp_path_factory.mktemp("demo") / "tiny", DiTARTokenizer.from_texts({"en": [TEXT]}))
        processor = DiTARProcessor.from_pretrained(folder)
        for name in ("ada", "bob"):
            processor.add_voice(name, np.random.default_rng(len(name)).normal(0, 0.1, RATE), RATE, TEXT)
        processor.default_voice = "ada"
        processor.save_pretrained(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        cache, log = folder.parent / "cache", folder.parent / "log"
        started["process"] = subprocess.Popen(
            [sys.executable, "-c", OFFLINE_DITAR, "demo", "--model", folder, "--port", str(port), "--device", "cpu"],
            env={**os.environ, "GRADIO_TEMP_DIR": str(cache), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=open(log, "w"),
            stderr=subprocess.STDOUT,
        )
        started.update(url=f"http://127.0.0.1:{port}/", log=log, folder=folder, cache=cache)
        poll(lambda: f"{started['url']} is the demo" in log.read_text() or started["process"].poll() is not None)
        assert started["process"].poll() is None, log.read_text()
    return started


def poll(condition):
    """Waits until `condition()` is true and gives what it returned; the page may change while it is looked at."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = [StaleElementReferenceException]
    return WebDriverWait(None, WAIT_SECONDS, ignored_exceptions=ignored).until(lambda _: condition())


class Page:
    """The demo as one sees it."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.get(url)
        poll(lambda: self.all("#text textarea"))

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return poll(lambda: [element for element in self.all(selector) if element.is_displayed()])[0]

    def type(self, name, text):
        field = self.one(f"#{name} textarea, #{name} input")
        field.clear()
        field.send_keys(text)

    def choose(self, voice):
        next(label for label in self.all("#voice label") if label.text == voice).click()

    def open_settings(self):
        self.one("#settings button").click()

    def upload(self, path):
        poll(lambda: self.all("#recording input[type=file]"))[0].send_keys(str(path))
        poll(lambda: self.all("#recording [data-testid^=waveform]"))

    def speak(self):
        self.one("#speak").click()

    def result(self):
        return poll(lambda: self.one("#result textarea, #result input").get_property("value"))

    def error(self):
        return poll(lambda: self.text("[data-testid=toast-text]"))

    def text(self, selector):
        """All that can be read there."""
        return " ".join(element.text for element in self.all(selector))

    def has_result(self):
        return bool(self.one("#result textarea, #result input").get_property("value"))

    def sound(self):
        """Address of the speech."""
        return poll(lambda: self.all("#speech a[download]"))[0].get_attribute("href")

    def play(self):
        """Presses play, and waits until the page shows that it plays."""
        self.one("#speech button[aria-label=Play]").click()
        self.one("#speech button[aria-label=Pause]")


@pytest.fixture(scope="module")
def driver(programs, tmp_path_factory):
    from selenium import webdriver

    chromium, chromedriver = programs
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver, server):
    """The page, freshly loaded."""
    return Page(driver, server["url"])


def downloaded(url):
    with urllib.request.urlopen(url) as answer:
        return soundfile.read(io.BytesIO(answer.read()), dtype="float32")


def test_type_click_and_hear(page, server):
    page.type("text", TEXT)
    page.choose("bob")
    page.open_settings()
    page.type("seed", "7")
    page.speak()
    assert page.result().endswith("seed 7") or "limit" in page.result()
    # the browser itself can decode and play it
    script = """
        const [url, done] = arguments, sound = new Audio(url);
        sound.onerror = () => done("error"); sound.onended = () => done(sound.currentTime); sound.play();
    """
    samples, rate = downloaded(page.sound())
    assert page.driver.execute_async_script(script, page.sound()) == pytest.approx(len(samples) / rate, abs=0.05)
    page.play()
    # and it is what the model says
    model = DiTARForTextToSpeech.from_pretrained(server["folder"])
    inputs = DiTARProcessor.from_pretrained(server["folder"])(TEXT, voice="bob")
    audio = model.generate(**inputs, generator=torch.Generator().manual_seed(7)).audio[0].numpy()
    assert rate == RATE
    np.testing.assert_allclose(samples, audio, atol=1e-3)
    picture = page.one("#spectrogram img")
    assert poll(lambda: page.driver.execute_script("return arguments[0].naturalWidth", picture)) > 500


def test_a_recorded_voice_is_imitated(page, tmp_path):
    soundfile.write(tmp_path / "voice.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    page.type("text", TEXT)
    page.choose("a recording")
    page.upload(tmp_path / "voice.wav")
    page.type("transcript", "Good.")
    page.speak()
    assert "only with the consent" in page.error() and not page.has_result()
    page.one("#consent input").click()
    page.speak()
    assert "s of speech" in page.result()
    assert len(downloaded(page.sound())[0]) > 0


def test_the_microphone_records_a_voice(page):
    page.type("text", TEXT)
    page.choose("a recording")
    page.one("#recording button[aria-label='Record audio']").click()
    page.one("#recording .record-button").click()
    poll(lambda: page.text("#recording time.duration") >= "0:02")
    page.one("#recording .stop-button").click()
    page.type("transcript", "Good.")
    page.one("#consent input").click()
    poll(lambda: page.all("#recording a[download], #recording [data-testid=waveform-controls]"))
    page.speak()
    assert "s of speech" in page.result()


@pytest.mark.parametrize(
    ("samples", "transcript", "message"),
    [
        (np.zeros(RATE), "Good.", "is silent"),
        (np.full(100, 0.5), "Good.", "lasts 0.00 seconds"),
        (np.random.default_rng(0).normal(0, 0.1, RATE), "", "The recording needs its transcript"),
        (b"Dear Sir", "Good.", "cannot be read as audio: Format not recognised"),
    ],
    ids=["silent", "short", "no-transcript", "no-audio"],
)
def test_a_bad_prompt_shows_the_error(page, tmp_path, samples, transcript, message):
    path = tmp_path / "prompt.wav"
    path.write_bytes(samples) if isinstance(samples, bytes) else soundfile.write(path, samples, RATE)
    page.type("text", TEXT)
    page.choose("a recording")
    poll(lambda: page.all("#recording input[type=file]"))[0].send_keys(str(path))
    poll(lambda: page.all("#recording button[aria-label=Clear]"))
    page.type("transcript", transcript)
    page.one("#consent input").click()
    page.speak()
    assert message in page.error() and not page.has_result()


@pytest.mark.parametrize(("text", "message"), [("", "There is no text"), ("<?>", "nothing to speak: '<?>'")])
def test_a_bad_text_shows_the_error(page, text, message):
    page.type("text", text)
    page.speak()
    assert message in page.error() and not page.has_result()


def test_a_voice_can_be_heard_before_it_speaks(page):
    poll(lambda: f"ada: “{TEXT}”" in page.text("#example"))
    page.choose("bob")
    poll(lambda: f"bob: “{TEXT}”" in page.text("#example"))
    page.choose("made up by the model")
    poll(lambda: not page.text("#example"))


def test_nothing_comes_from_elsewhere(page, server):
    page.type("text", TEXT)
    page.speak()
    page.result()
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    sent = [message["params"]["request"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    # chrome: is what an empty tab shows
    hosts = {urlsplit(request["url"]).netloc for request in sent if request["url"].startswith(("http", "ws"))}
    assert hosts == {urlsplit(server["url"]).netloc}
    assert "OUTSIDE" not in server["log"].read_text()


def test_recordings_do_not_stay(page, server, tmp_path):
    """The server ends as by Ctrl+C."""
    soundfile.write(tmp_path / "secret.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    page.choose("a recording")
    page.upload(tmp_path / "secret.wav")
    assert list(server["cache"].rglob("secret.wav"))
    server["process"].send_signal(signal.SIGINT)
    server["process"].wait(WAIT_SECONDS)
    assert not list(server["cache"].rglob("secret.wav"))
