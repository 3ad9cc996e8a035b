"""Reviewing a proposal of identities: answers are constraints, and the next question is the one that changes most."""
