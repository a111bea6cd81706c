"""Sound files to transcripts: reading, cutting, decoding side by side, put together file by file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from experiments.audio import SAMPLE_RATE_HZ, unusable
from experiments.transcribe.ahead import ahead, gathered
from experiments.transcribe.decoding import WindowDecoder
from experiments.transcribe.long_form import Pcm, StretchDecoding
from experiments.transcribe.reading import Sound, Stream, open_sound
from experiments.transcribe.results import Segment, Transcript
from experiments.transcribe.together import Failed, Finished, Task, Whole, together
from experiments.transcribe.windows import cut
from harness import usage
from harness.errors import UserError

# Threads that read. One reads FLAC some hundred times faster than it is played.
READERS = max(2, min(8, (os.cpu_count() or 2) // 2))
BLOCKS_AHEAD = 4  # of ten seconds, of a file that is read window by window
# Of a stretch that begins some seconds into its file; is to say how many seconds are done.
StretchDecoder = Callable[[Pcm, float, Callable[[float], object]], StretchDecoding]
OnProgress = Callable[[Path, float], object]  # told that some seconds of a file are done


@dataclass(frozen=True)
class Outcome:
    """What became of a file: its transcript, or the reason why there is none."""

    path: Path
    transcript: Transcript | None = None
    error: UserError | None = None


@dataclass(eq=False)
class _File:
    """A file on its way: the stretches that were heard, how many there are, and what went wrong."""

    path: Path
    stream: Stream | None = None
    heard: dict[int, list[Segment]] = field(default_factory=dict)
    count: int | None = None
    error: UserError | None = None

    @property
    def is_finished(self) -> bool:
        return self.error is not None or self.count == len(self.heard)

    def forget(self) -> None:
        """What takes memory."""
        self.heard.clear()
        self.stream = None

    @property
    def dur_s(self) -> float:
        """As it was read: headers may not know it."""
        return self.stream.samples / SAMPLE_RATE_HZ if self.stream else 0.0


class Pipeline:
    """Transcribes with `decoder`, each stretch as `decode` does it; sequential: each file is one stretch, and
    not cut at its silences."""

    def __init__(
        self, decoder: WindowDecoder, decode: StretchDecoder, language: str, sequential: bool
    ) -> None:
        self._decoder = decoder
        self._decode = decode
        self._language = language
        self._sequential = sequential

    def transcribe(
        self, paths: Iterable[Path], on_progress: OnProgress = lambda *_: None
    ) -> Iterator[Outcome]:
        """The outcome of each path, in their order. A file that can't be used does not stop the others."""
        files = [_File(path) for path in paths]
        sources = [partial(self._events, file, on_progress) for file in files]
        events = gathered(sources, threads=min(READERS, len(files)) or 1, depth=2 * self._decoder.batch)
        turn = 0
        with closing(events):
            for event in together(events, self._decoder):
                _note(event)
                while turn < len(files) and files[turn].is_finished:
                    yield self._outcome(files[turn])
                    files[turn].forget()
                    turn += 1

    def _events(
        self, file: _File, on_progress: OnProgress
    ) -> Iterator[Task[_File] | Whole[_File] | Failed[_File]]:
        """In a reader's thread: the stretches of a file as tasks."""
        on_file_progress = partial(on_progress, file.path)
        index = 0
        try:
            blocks = _blocks(open_sound(file.path))
            file.stream = Stream(ahead(blocks, BLOCKS_AHEAD) if self._sequential else blocks)
            if self._sequential:
                yield Task(file, 0, self._decode(file.stream, 0.0, on_file_progress))
                index = 1
            else:
                for index, stretch in enumerate(cut(file.stream), start=1):
                    yield Task(file, index - 1, self._decode(stretch, stretch.start_s, on_file_progress))
        except Exception as error:
            yield Failed(file, _explained(file.path, error))
        else:
            yield Whole(file, index)

    def _outcome(self, file: _File) -> Outcome:
        if file.error is not None:
            return Outcome(file.path, error=file.error)
        segments = [segment for index in sorted(file.heard) for segment in file.heard[index]]
        return Outcome(file.path, Transcript(file.path.name, self._language, file.dur_s, tuple(segments)))


def _note(event: Finished[_File] | Whole[_File] | Failed[_File]) -> None:
    match event:
        case Finished(file, index, segments):
            file.heard[index] = segments
        case Whole(file, count):
            file.count = count
        case Failed(file, error):
            file.error = file.error or error


def _blocks(sound: Sound) -> Iterator[np.ndarray]:
    """Those of `sound`; whatever goes wrong there concerns this file only."""
    try:
        yield from sound.blocks()
    except Exception as error:
        raise _explained(sound.path, error) from error


def _explained(path: Path, error: Exception) -> UserError:
    """What stopped one file as something to tell the user."""
    if isinstance(error, OSError):
        return unusable(path, f"can't be read ({error.strerror or error})", "a file that can be read")
    found = usage.explain(error)
    if isinstance(error, UserError):
        return found
    return UserError(f"{path} was not transcribed: {found}", found.hint, found.exit_code)
