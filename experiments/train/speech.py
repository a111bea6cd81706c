"""espeak-ng as a source of speech: (text, voice) to 16 kHz samples.

The library and its data come from the package espeakng-loader and are called through ctypes. It speaks
hundreds of times faster than real time, in some six hundred different voices (accent and variant).
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import random
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import espeakng_loader
import numpy as np
import soxr

from experiments.audio import SAMPLE_RATE_HZ
from harness.errors import ExitCode, UserError

# espeak's names of its English accents: "en" is British. Left out is en-shaw, which reads another alphabet.
ACCENTS = (
    *("en", "en-us", "en-us-nyc", "en-029", "en-gb-scotland"),
    *("en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd"),
)

# Of varied kind: women (Annie, Andrea, aunty; f1 and grandma are older) and men (quincy is deep, victor is
# young, grandpa old; edward comes from espeak's Klatt synthesiser).
HELD_OUT_VARIANTS = (
    *("Annie", "Andrea", "aunty", "f1", "grandma"),
    *("m3", "m5", "paul", "quincy", "victor", "edward", "grandpa"),
)

# Of espeak's 104 variants these are in neither list:
# - whisper, whisperf, caleb, klatt, klatt2: (almost) no voicing; pyin finds a pitch in at most 18% of the
#   frames, in most other voices in 70-90%
# - Demonic, UniRobot, anikaRobot, robosoft*, RicishayMax*, announcer: effects (a monotone, loud echo)
# - kaukovalta, travis (first formant at 40% and 50% of its frequency), Lee (third at 9%): the vowels are lost
# - Reed: takes noise from libc's rand(), so it can't be repeated; fast: the default voice once more
TRAIN_VARIANTS = (
    *("Alex", "Alicia", "Andy", "AnxiousAndy", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo"),
    *("Jacky", "Marco", "Mario", "Michael", "Mike", "Mr serious", "Nguyen", "Storm", "Tweaky", "adam"),
    *("anika", "antonio", "belinda", "benjamin", "boris", "croak", "david", "ed", "edward2", "f2"),
    *("f3", "f4", "f5", "gustave", "ian", "iven", "iven2", "iven3", "iven4", "john", "klatt3"),
    *("klatt4", "klatt5", "klatt6", "linda", "m1", "m2", "m4", "m6", "m7", "m8", "marcelo", "max"),
    *("michel", "miguel", "mike2", "norbert", "pablo", "pedro", "rob", "robert", "sandro", "shelby"),
    *("steph", "steph2", "steph3", "zac"),
)

_RATES_WPM, _PITCHES, _PITCH_RANGES, _SPEEDS = (115, 195), (25, 75), (30, 70), (0.92, 1.08)

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

_NATIVE_RATE_HZ = 22_050
_BUFFER_MS = 1000  # fewer calls back into Python: a tenth faster than with espeak's 60 ms
_VOLUME_PERCENT = 50  # at 100, loud variants clip
_PATH_BYTES = 160  # N_PATH_HOME: espeak cuts longer data paths off, the final zero included

_REINSTALL = "python -m pip install --force-reinstall espeakng-loader"

_PEAK = 10 ** (-3 / 20) * 32768  # -3 dBFS
_FRAME = SAMPLE_RATE_HZ // 200  # 5 ms
_KEPT_FRAMES = 4  # of silence at both ends
_SILENCE = 10 ** (-40 / 20)  # of the loudest sample; final fricatives are 20-34 dB down


@dataclass(frozen=True)
class Voice:
    """How a sentence is spoken.

    accent: one of ACCENTS; variant: a file in espeak's voices/!v; rate_wpm: words per minute, 80-450; pitch,
    pitch_range: 0-99, espeak's defaults are 50; speed: above 1 shortens and raises the voice, formants too.
    """

    accent: str
    variant: str
    rate_wpm: int
    pitch: int
    pitch_range: int
    speed: float


def random_voice(rng: random.Random, held_out: bool) -> Voice:
    """A voice of any accent, its variant from HELD_OUT_VARIANTS or TRAIN_VARIANTS."""
    return Voice(
        accent=rng.choice(ACCENTS),
        variant=rng.choice(HELD_OUT_VARIANTS if held_out else TRAIN_VARIANTS),
        rate_wpm=rng.randint(*_RATES_WPM),
        pitch=rng.randint(*_PITCHES),
        pitch_range=rng.randint(*_PITCH_RANGES),
        speed=rng.uniform(*_SPEEDS),
    )


class Speaker:
    """espeak-ng, loaded while the context is open; one at a time per process, for its state is global.

    That state (phase, flutter, noise) carries over from sentence to sentence and no call resets all of it, so
    the library is unloaded and loaded anew whenever the voice changes. Samples are thus a function of the
    voice and the texts said since the voice last changed, in any process.
    """

    def __init__(self) -> None:
        self._data = Path(espeakng_loader.get_data_path())
        self._variants = _variants(self._data)
        self._library: ctypes.CDLL | None = None
        self._voice: Voice | None = None
        self._heard: list[bytes] = []
        self._callback = _CALLBACK(self._hear)  # espeak keeps only its address

    def __enter__(self) -> Speaker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unload()

    def say(self, text: str, voice: Voice) -> np.ndarray:
        """int16 [n] at 16 kHz, peak at -3 dBFS, 20 ms of silence left at both ends.

        Raises UserError for a voice that espeak doesn't have and for text in which nothing can be spoken.
        """
        library = self._loaded(voice)
        self._heard.clear()
        spoken = text.encode()
        library.espeak_Synth(spoken, len(spoken) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        native = np.frombuffer(b"".join(self._heard), np.int16).astype(np.float32)
        if not native.any():
            raise UserError(f"nothing to speak in {text!r}", "text with words", ExitCode.INPUT)
        samples = _trimmed(soxr.resample(native, _NATIVE_RATE_HZ * voice.speed, SAMPLE_RATE_HZ, "MQ"))
        return np.rint(samples * (_PEAK / np.abs(samples).max())).astype(np.int16)

    def _hear(self, samples: Any, count: int, events: object) -> int:
        if samples and count:
            self._heard.append(ctypes.string_at(samples, 2 * count))
        return 0

    def _loaded(self, voice: Voice) -> ctypes.CDLL:
        if self._library is None or voice != self._voice:
            self._unload()
            self._library = _load(self._data)
            self._library.espeak_SetSynthCallback(self._callback)
            self._choose(self._library, voice)
            self._voice = voice
        return self._library

    def _choose(self, library: ctypes.CDLL, voice: Voice) -> None:
        if voice.variant not in self._variants:  # espeak would take its default and not say so
            raise UserError(
                f"espeak-ng has no variant {voice.variant!r}", f"one of {', '.join(sorted(self._variants))}"
            )
        if library.espeak_SetVoiceByName(f"{voice.accent}+{voice.variant}".encode()) != 0:
            raise UserError(f"espeak-ng has no accent {voice.accent!r}", f"one of {', '.join(ACCENTS)}")
        for parameter, value in (
            (_RATE, voice.rate_wpm),
            (_VOLUME, _VOLUME_PERCENT),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            library.espeak_SetParameter(parameter, value, 0)

    def _unload(self) -> None:
        self._voice = None
        if self._library is not None:
            self._library.espeak_Terminate()
            _ctypes.dlclose(self._library._handle)
            self._library = None


def _variants(data: Path) -> frozenset[str]:
    folder = data / "voices" / "!v"
    if not folder.is_dir():
        raise UserError(f"espeak-ng's voices are not in {folder}", _REINSTALL, ExitCode.INPUT)
    return frozenset(os.listdir(folder))


def _load(data: Path) -> ctypes.CDLL:
    """The library, initialised, in the state of a fresh process."""
    path = os.fsencode(data)
    if len(path) >= _PATH_BYTES:
        raise UserError(
            f"espeak-ng can't open data in a path of {len(path)} bytes, {data}",
            f"an environment whose path is at least {len(path) - _PATH_BYTES + 1} bytes shorter",
            ExitCode.INPUT,
        )
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise UserError(f"espeak-ng can't be loaded: {error}", _REINSTALL, ExitCode.INPUT) from error
    if library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, path, _DONT_EXIT) != _NATIVE_RATE_HZ:
        raise UserError(f"espeak-ng can't read its data in {data}", _REINSTALL, ExitCode.INPUT)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # or breath noise would follow the clock
    return library


def _trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence at both ends but for _KEPT_FRAMES frames: float32 [n] to float32 [fewer]."""
    frames = len(samples) // _FRAME
    peaks = np.abs(samples[: frames * _FRAME]).reshape(frames, _FRAME).max(axis=1)
    loud = np.flatnonzero(peaks > _SILENCE * peaks.max())
    return samples[max(0, loud[0] - _KEPT_FRAMES) * _FRAME : (loud[-1] + 1 + _KEPT_FRAMES) * _FRAME]
