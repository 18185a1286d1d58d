"""The customer API: its routes, shapes and documents. `app.py` puts them together; `actors/api.py` serves it."""
