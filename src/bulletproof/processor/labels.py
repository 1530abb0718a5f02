"""The caller's labels, as forms and options give them."""

from bulletproof.errors import InputValidationError

_MAX_LABELS = 100
_MAX_LABEL_CHARS = 200


def split_labels(given: str | None) -> list[str] | None:
    """Split labels at commas.

    Args:
        given: The form field, such as ``"praise, bug report, question"``.

    Returns:
        The labels, or None when none were given.

    Raises:
        InputValidationError: No labels between commas, too many, or too long ones.

    Example:
        >>> split_labels("praise, bug report,praise")
        ['praise', 'bug report']
    """
    if given is None or not given.strip():
        return None
    labels = list(dict.fromkeys(label.strip() for label in given.split(",") if label.strip()))
    if not labels:
        raise InputValidationError("no label is left between the commas", field="labels")
    if len(labels) > _MAX_LABELS:
        raise InputValidationError(
            f"{len(labels)} different labels were given; {_MAX_LABELS} are the most",
            hint="Send them in one field, separated by commas: labels=praise,bug report,question",
            field="labels",
        )
    if any(len(label) > _MAX_LABEL_CHARS for label in labels):
        raise InputValidationError(f"a label has more than {_MAX_LABEL_CHARS} characters", field="labels")
    return labels
