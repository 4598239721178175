"""The blog: one feature, one worker, one application."""

from journeyman import App

from .posts import PostWorker, posts, summarizer_from_environment

app = App(features=[posts], workers=[PostWorker(summarizer_from_environment)], store="sqlite:///blog.db")
