"""Where the report's templates are, and how they are filled."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def environment() -> Environment:
    """Everything is escaped, whatever a model wrote, and a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("flywheel_core.report"),
        autoescape=select_autoescape(enabled_extensions=("jinja", "html"), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
