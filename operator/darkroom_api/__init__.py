"""The contract of Darkroom: what users write, what the operator reports, what a trainer says.

Pydantic only. One model is the schema in the API server, the text of `kubectl explain` and the reference in the docs.
"""
