"""The contract: the events that this service takes and sends, as models, JSON Schemas and an AsyncAPI document.

Usable on its own: nothing here imports the service.
"""
