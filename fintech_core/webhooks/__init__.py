"""Outgoing webhooks: what happened to a customer, told to the systems they registered.

`outbox` writes an event in the database transaction of its effect, `delivery` sends it, `services`
keeps the endpoints. Signed as Standard Webhooks has it (https://www.standardwebhooks.com).
"""
