"""Adapters to other people's packages, each in a module of its own that needs that package."""
