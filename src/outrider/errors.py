"""Everything that Outrider raises on purpose.

    OutriderError
    +-- UsageError            the caller can mend it: exit code 2 of the CLI, 400 of a server
    |   +-- ModelError        a checkpoint is missing, damaged, unsupported, or does not fit its partner
    |   +-- ParameterError    a sampling parameter or an option is out of range
    |   +-- ContextError      a prompt does not fit the model's context or the cache
    +-- NumericsError         the numbers a runtime gives cannot be trusted: self-test failed, logits not finite

A message says what was wrong, the value, the limit, and what to try next, in one line. An `assert` elsewhere in the
package means a bug of ours.
"""

from __future__ import annotations


class OutriderError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(OutriderError, ValueError):
    """What was asked for cannot be done as asked; the message says what can."""


class ModelError(UsageError):
    """A checkpoint cannot be used."""


class ParameterError(UsageError):
    """An option has a value outside its range."""


class ContextError(UsageError):
    """A prompt does not fit."""


class NumericsError(OutriderError):
    """A runtime computes something other than the model."""
