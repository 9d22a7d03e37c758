"""The sound of the stand-in: General MIDI music in which one instrument is predominant.

Within a recording everything but the notes is shared, as in real music: a split by excerpt leaks, one by recording
does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib.metadata import distribution
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.fft
from symusic.core import NoteSecond, ScoreSecond, Synthesizer, TrackSecond

from irmas.labels import CODES

SAMPLE_RATE = 44_100
DURATION_S = 3.0
FRAMES = int(SAMPLE_RATE * DURATION_S)

# How hard the corpus is, in dB; tuned until a small net, split by recording, does about as well as on IRMAS.
LEAD_OVER_BAND_DB = (10.0, 28.0)
HARDLY_SOUNDS = 0.12  # share of excerpts whose label is hardly audible (IRMAS: 13.9 % of an audited sample)
HARDLY_SOUNDS_DB = -25.0
AMONG_SOLOISTS_DB = (-6.0, 0.0)
TONE_DB = 3.0
HISS_DB = (-75.0, -60.0)

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)

Samples = npt.NDArray[np.float32]


class Event(NamedTuple):
    """A note: times in seconds, MIDI pitch."""

    start_s: float
    duration_s: float
    pitch: int


class Harmony(NamedTuple):
    """The tempo, the pitch classes of the scale, the chords (one every two beats) and the length of an excerpt."""

    beat_s: float
    scale: tuple[int, ...]
    chords: tuple[tuple[int, ...], ...]
    frames: int

    @property
    def duration_s(self) -> float:
        return self.frames / SAMPLE_RATE

    def chord_at(self, time_s: float) -> tuple[int, ...]:
        return self.chords[int(time_s / (2 * self.beat_s)) % len(self.chords)]


Figure = Callable[[np.random.Generator, Harmony, int, int], Iterator[Event]]


def _within(pitch_classes: tuple[int, ...], low: int, high: int) -> list[int]:
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in pitch_classes]


def line(rng: np.random.Generator, harmony: Harmony, low: int, high: int) -> Iterator[Event]:
    """Yield one voice that wanders through the scale, with rests."""
    pitches = _within(harmony.scale, low, high)
    place = int(rng.integers(len(pitches)))
    time_s = 0.0
    while time_s < harmony.duration_s:
        duration_s = harmony.beat_s * rng.choice([0.5, 0.5, 1.0, 1.0, 1.5, 2.0])
        if time_s == 0 or rng.random() < 0.9:
            yield Event(time_s, 0.95 * duration_s, pitches[place])
        place = int(np.clip(place + rng.integers(-3, 4), 0, len(pitches) - 1))
        time_s += duration_s


def arpeggio(rng: np.random.Generator, harmony: Harmony, low: int, high: int) -> Iterator[Event]:
    """Yield broken chords in eighths, each note ringing on."""
    base = int(rng.integers(low, max(low + 1, high - 18)))
    order = rng.permutation(5)
    for step, time_s in enumerate(np.arange(0.0, harmony.duration_s, harmony.beat_s / 2)):
        pitches = _within(harmony.chord_at(time_s), base, base + 24)
        yield Event(time_s, 2 * harmony.beat_s, pitches[order[step % 5]])


def _chords(
    rng: np.random.Generator, harmony: Harmony, low: int, high: int, *, beats: tuple[float, ...], spread_s: float
) -> Iterator[Event]:
    base = int(rng.integers(low, max(low + 1, high - 15)))
    voices = int(rng.integers(3, 6))
    time_s = 0.0
    while time_s < harmony.duration_s:
        duration_s = harmony.beat_s * rng.choice(beats)
        for place, pitch in enumerate(_within(harmony.chord_at(time_s), base, base + 22)[:voices]):
            yield Event(time_s + spread_s * place, 0.95 * duration_s, pitch)
        time_s += duration_s


strum = partial(_chords, beats=(0.5, 0.5, 1.0, 1.5), spread_s=0.015)
comp = partial(_chords, beats=(0.5, 1.0, 1.5, 2.0), spread_s=0.0)
sustained = partial(_chords, beats=(2.0,), spread_s=0.0)


def two_hands(rng: np.random.Generator, harmony: Harmony, low: int, high: int) -> Iterator[Event]:
    """Yield a line over chords or broken chords, as keyboards play."""
    middle = (low + high) // 2
    yield from line(rng, harmony, middle, high)
    yield from (arpeggio, comp)[rng.integers(2)](rng, harmony, low, middle)


def drums(rng: np.random.Generator, harmony: Harmony, low: int, high: int) -> Iterator[Event]:
    """Yield kick, snare and hi-hat or ride in eighths; the range picks the cymbal."""
    for step, time_s in enumerate(np.arange(0.0, harmony.duration_s, harmony.beat_s / 2)):
        yield Event(time_s, 0.3, high)
        if step % 4 == 2:
            yield Event(time_s, 0.3, low)
        elif step % 4 == 0 or rng.random() < 0.2:
            yield Event(time_s, 0.3, 36)


class Part(NamedTuple):
    """An instrument: its General MIDI programs (from 0), its range in MIDI pitches, and its figures.

    Chords may exceed the range by 7; symusic 0.5.9 never returns from some pitches far above it.
    """

    programs: tuple[int, ...]
    low: int
    high: int
    figures: tuple[Figure, ...]


LEADS: dict[str, Part] = {
    "cel": Part((42,), 36, 69, (line,)),
    "cla": Part((71,), 50, 86, (line,)),
    "flu": Part((73,), 60, 91, (line,)),
    "gac": Part((24, 25), 40, 76, (strum, arpeggio, line)),
    "gel": Part((27, 28, 29, 30), 40, 80, (line, strum, arpeggio)),
    "org": Part((16, 17, 18, 19), 40, 84, (sustained, comp, two_hands)),
    "pia": Part((0, 1, 2, 3), 36, 88, (two_hands, arpeggio, comp)),
    "sax": Part((64, 65, 66, 67), 46, 79, (line,)),
    "tru": Part((56, 59), 54, 82, (line,)),
    "vio": Part((40,), 55, 93, (line,)),
    "voi": Part((52, 53, 54), 48, 79, (line, line, sustained)),
}
BASS = Part((32, 33, 34, 35, 43), 28, 47, (line,))
PADS = Part((48, 49, 61, 89, 11, 46, 4), 48, 79, (sustained, comp, arpeggio))
KIT = (Part((0,), 38, 42, (drums,)), Part((0,), 40, 51, (drums,)))


@cache
def _synthesizer(program: int, is_drum: bool) -> Synthesizer:
    """Return one synthesizer per program: symusic 0.5.9's sound depends on the programs that it loaded before.

    The sound font lies in the package pretty_midi, which is slow to import and not needed otherwise.
    """
    sound_font = distribution("pretty_midi").locate_file("pretty_midi/TimGM6mb.sf2")
    return Synthesizer(str(sound_font), SAMPLE_RATE, 0)


class Player(NamedTuple):
    """A part in one recording; `gains` [2, 1] hold its level (left, right) and so its place between them."""

    program: int
    part: Part
    figure: Figure
    gains: Samples

    def play(self, rng: np.random.Generator, harmony: Harmony) -> Samples:
        """Return [2, frames], leveled by root mean square, as the synthesizer knows no velocities."""
        is_drum = self.figure is drums
        track = TrackSecond("", self.program, is_drum)
        for event in self.figure(rng, harmony, self.part.low, self.part.high):
            track.notes.append(NoteSecond(*event, 100))
        score = ScoreSecond(480)
        score.tracks.append(track)
        sound = np.asarray(_synthesizer(self.program, is_drum).render(score, stereo=False))[0]
        # What sounds beyond the end goes to the start, as if music had gone on before it.
        stem = np.pad(sound, (0, -len(sound) % harmony.frames)).reshape(-1, harmony.frames).sum(0)
        return self.gains * _at_rms(stem, 0.0)


def _engage(rng: np.random.Generator, part: Part, level_db: float) -> Player:
    angle = np.pi / 4 + rng.uniform(-0.5, 0.5)
    gains = _gain(level_db) * np.array([[np.cos(angle)], [np.sin(angle)]], np.float32)
    figure = part.figures[rng.integers(len(part.figures))]
    return Player(int(rng.choice(part.programs)), part, figure, gains)


def _band(rng: np.random.Generator, lead: str, with_drums: bool) -> list[Player]:
    """Return the accompaniment: instruments of other classes, and mostly a bass, a pad and drums."""
    codes = rng.choice([code for code in CODES if code != lead], size=rng.integers(1, 3), replace=False)
    band = [_engage(rng, LEADS[str(code)], rng.uniform(-8, 0)) for code in codes]
    if rng.random() < 0.7:
        band.append(_engage(rng, BASS, rng.uniform(-8, 0)))
    if rng.random() < 0.5:
        band.append(_engage(rng, PADS, rng.uniform(-10, -2)))
    if with_drums:
        band.append(_engage(rng, KIT[rng.integers(2)], rng.uniform(-8, 0)))
    return band


def _room(rng: np.random.Generator, frames: int) -> npt.NDArray[np.complex64]:
    """Return [2, frames // 2 + 1], a frequency response of tone control, band limit and reverberation."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(frames, 1 / SAMPLE_RATE), 20.0) / 20.0)
    tone_db = np.interp(octaves, np.linspace(0, 10, 9), rng.normal(0, TONE_DB, 9))
    tone_db -= 12 * np.maximum(octaves - rng.uniform(8.5, 10), 0)
    seconds = np.arange(frames) / SAMPLE_RATE
    decay_s = rng.uniform(0.1, 0.5)
    echo = rng.standard_normal((2, frames), np.float32) * np.exp(-seconds / decay_s).astype(np.float32)
    echo *= np.float32(rng.uniform(0, 0.6)) / np.sqrt(np.sum(echo**2, axis=1, keepdims=True))
    echo[:, 0] += 1
    return np.asarray(scipy.fft.rfft(echo) * _gain(tone_db), np.complex64)


def _gain(level_db: npt.ArrayLike) -> Samples:
    return np.asarray(10 ** (np.asarray(level_db) / 20), np.float32)


def _at_rms(sound: Samples, level_db: float) -> Samples:
    rms = np.maximum(np.sqrt(np.mean(sound**2)), 1e-6)  # the sound font lacks a few notes: some parts are silent
    return np.asarray(sound * (_gain(level_db) / rms), np.float32)


class Studio:
    """The acoustics, tempo and scale that a recording's excerpts share."""

    def __init__(self, rng: np.random.Generator, frames: int) -> None:
        self.frames = frames
        self.room = _room(rng, frames)
        self.loudness_db = rng.uniform(-34, -20)
        self.hiss = _gain(self.loudness_db + rng.uniform(*HISS_DB)) * rng.standard_normal((2, frames), np.float32)
        self.beat_s, key = 60 / rng.uniform(70, 150), rng.integers(12)
        self.scale = tuple(int(key + step) % 12 for step in (MAJOR if rng.random() < 0.6 else MINOR))

    def harmony(self, rng: np.random.Generator) -> Harmony:
        degrees = rng.choice([0, 0, 1, 3, 4, 5], size=4)
        chords = tuple(tuple(self.scale[(degree + third) % 7] for third in (0, 2, 4)) for degree in degrees)
        return Harmony(self.beat_s, self.scale, chords, self.frames)

    def record(self, rng: np.random.Generator, mix: Samples) -> npt.NDArray[np.int16]:
        """Return the recorded mix: [2, frames] -> [frames, 2]."""
        mix = _at_rms(scipy.fft.irfft(scipy.fft.rfft(mix) * self.room, self.frames), self.loudness_db)
        mix += np.roll(self.hiss, rng.integers(self.frames), axis=1)
        return np.rint(np.clip(mix.T, -1, 1) * 32767).astype(np.int16)


def _together(rng: np.random.Generator, harmony: Harmony, players: Sequence[Player]) -> Samples:
    silence = np.zeros((2, harmony.frames), np.float32)
    return sum((player.play(rng, harmony) for player in players), silence)


def perform(rng: np.random.Generator, code: str, excerpts: int, *, with_drums: bool) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the excerpts of one recording of a class, each [FRAMES, 2]; every draw comes from `rng`."""
    lead = _engage(rng, LEADS[code], 0.0)
    band = _band(rng, code, with_drums)
    over_band_db = rng.uniform(*LEAD_OVER_BAND_DB)
    studio = Studio(rng, FRAMES)
    for _ in range(excerpts):
        harmony = studio.harmony(rng)
        backing = _together(rng, harmony, band)
        lead_db = HARDLY_SOUNDS_DB if rng.random() < HARDLY_SOUNDS else over_band_db
        yield studio.record(rng, _at_rms(backing, 0.0) + _gain(lead_db) * lead.play(rng, harmony))


def perform_song(
    rng: np.random.Generator, casts: Sequence[Sequence[str]], seconds: float, *, with_drums: bool
) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the excerpts of one song, each [samples, 2]; all instruments of an excerpt's cast are predominant in it."""
    codes = list(dict.fromkeys(code for cast in casts for code in cast))
    soloists = {code: _engage(rng, LEADS[code], rng.uniform(*AMONG_SOLOISTS_DB)) for code in codes}
    band = [_engage(rng, BASS, rng.uniform(-8, 0)), _engage(rng, PADS, rng.uniform(-10, -2))]
    if with_drums:
        band.append(_engage(rng, KIT[rng.integers(2)], rng.uniform(-8, 0)))
    over_band_db = rng.uniform(*LEAD_OVER_BAND_DB)
    studio = Studio(rng, round(seconds * SAMPLE_RATE))
    for cast in casts:
        harmony = studio.harmony(rng)
        backing = _together(rng, harmony, band)
        front = _together(rng, harmony, [soloists[code] for code in cast])
        yield studio.record(rng, _at_rms(backing, 0.0) + _gain(over_band_db) * _at_rms(front, 0.0))
