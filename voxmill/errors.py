"""The two ways a command ends early; both are told in one line, without a traceback."""


class UserError(Exception):
    """A mistake of the user, with its mend: names the file, line or value. Exit status 2."""


class JobError(Exception):
    """The machine cannot go on (no space, no memory, a missing library). Nothing done is lost. Exit status 1."""
