"""What is measured: Whisper, from sound files to tokens, and the mechanisms that scopes switch on."""

import logging


def _concerns_us(record: logging.LogRecord) -> bool:
    """False for what is logged whenever torchao is imported: that its extensions, which this project does not
    use, are for another Python or GPU, and that torch knows its enumerations already."""
    said = str(record.msg)
    if record.name == "torchao":
        return not said.startswith(("Failed to load", "Skipping import of cpp extensions"))
    about = record.args if isinstance(record.args, tuple) else ()
    of_torchao = any(str(getattr(one, "__module__", "")).startswith("torchao.") for one in about)
    return not (of_torchao and "register_constant()" in said)


# Here, since transformers imports torchao wherever it is imported first.
for _logger in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_logger).addFilter(_concerns_us)
