"""Sound files to text: any length, many at once.

from experiments.transcribe import Transcriber

for segment in Transcriber()("talk.flac").segments:
    print(segment.start, segment.end, segment.text)
"""

from experiments.transcribe.pipeline import Outcome
from experiments.transcribe.results import Segment, Transcript, Word
from experiments.transcribe.transcriber import Transcriber

__all__ = ["Outcome", "Segment", "Transcriber", "Transcript", "Word"]
