"""The blog: one feature, one worker, one application."""

from journeyman import App

from .importing import import_command
from .posts import PostWorker, posts, summarizer_from_environment

__all__ = ["app", "import_command"]

app = App(
    features=[posts],
    workers=[PostWorker(summarizer_from_environment)],
    pages=[f"{__package__}.posts.pages:pages"],
    store="sqlite:///blog.db",
)
