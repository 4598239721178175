"""The posts feature: posts, and the summaries that a worker makes of them."""

from .commands import (
    CreatePost,
    DeletePost,
    FailSummaryGeneration,
    RequestSummaryGeneration,
    SetGeneratedSummary,
    UpdatePost,
    posts,
)
from .queries import GetPost, ListPosts, PostPage
from .state import Post, PostsState
from .summarizer import Summarizer, summarizer_from_environment
from .worker import PostWorker

__all__ = [
    "CreatePost",
    "DeletePost",
    "FailSummaryGeneration",
    "GetPost",
    "ListPosts",
    "Post",
    "PostPage",
    "PostWorker",
    "PostsState",
    "RequestSummaryGeneration",
    "SetGeneratedSummary",
    "Summarizer",
    "UpdatePost",
    "posts",
    "summarizer_from_environment",
]
