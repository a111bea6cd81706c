"""What measures the project itself."""

import experiments  # noqa: F401  before transformers and torchao, for what is not said about them
