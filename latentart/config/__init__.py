"""Strict configs in pydantic, without torch, so that help is instant."""
