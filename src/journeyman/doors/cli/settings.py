"""What the global options say, and the application that they name."""

from __future__ import annotations

import importlib

import msgspec

from journeyman.app import App
from journeyman.errors import DefinitionError

#: The application when nobody names one: the example.
APP_DEFAULT = "journeyman.examples.blog.app:app"


class Settings(msgspec.Struct, frozen=True):
    """The global options; None where they were not given."""

    app: str | None
    store: str | None

    @property
    def app_name(self) -> str:
        return self.app or APP_DEFAULT

    def load_app(self) -> App:
        """Import the application.

        Raises:
            DefinitionError: there is no such module or attribute, or it is no App.
        """
        module_name, _, attribute = self.app_name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):
                raise
            raise DefinitionError(
                f"There is no module {module_name!r} to take the application from: check --app."
            ) from error
        app = getattr(module, attribute or "app", None)
        if not isinstance(app, App):
            raise DefinitionError(f"{module_name} has no App named {attribute or 'app'!r}: say --app MODULE:ATTRIBUTE.")
        return app
