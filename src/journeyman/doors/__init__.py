"""How people and programs reach an application. Doors translate, and hold no rules."""
