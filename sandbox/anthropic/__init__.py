"""An HTTP stand-in for the Anthropic API, for development, tests and the demo.

It speaks the API's wire format, holds its rules (credentials, limits, parameters, schemas) and makes every answer from the text
of the request, the same every time. It can be told to fail, and it remembers what it was asked:

====== ====================== =========================================================================================
POST   /_stand_in/script      append rules: ``[{"match": {"kind", "contains", "model"}, "skip": 0, "times": 1, "fault": {…}}]``
                              (``times`` null: for ever; ``sandbox.anthropic.script.Fault`` tells the faults)
DELETE /_stand_in/script      forget the rules
GET    /_stand_in/requests    every request in order; ``?kind=``, ``?after=NUMBER``, ``?body=0``
DELETE /_stand_in/requests    forget the requests
GET    /_stand_in/summary     counts by kind and outcome, tokens
====== ====================== =========================================================================================

Kinds: ``facts``, ``reduction``, ``memory``, ``sections``, ``other`` (messages, each item of a batch too), ``count_tokens``,
``batch`` (creating one), ``batch_status`` (everything else about batches), ``models``.
"""

from sandbox.anthropic.control import StandInControl
from sandbox.anthropic.server import StandIn

__all__ = ["StandIn", "StandInControl"]
