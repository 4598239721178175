"""What `journeyman import` makes of a document in a file: it looks for `import_command` beside the app."""

from .posts import CreatePost


def import_command(*, title: str, content: str, post_id: str) -> CreatePost:
    """A post for a document. The id is the file's own, or derived from the content: the same document, the same id."""
    return CreatePost(post_id=post_id, title=title, content=content)
