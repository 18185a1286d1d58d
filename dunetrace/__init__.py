"""Dunetrace."""
