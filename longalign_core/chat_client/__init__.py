"""The one way to talk to any model: hosted or served here, asked with patience, remembered, and paid for once."""

from longalign_core.chat_client.calls import CallFailedError, ChatReply, ChatRequest, Endpoint
from longalign_core.chat_client.client import ChatClient
from longalign_core.chat_client.faults import Clock
from longalign_core.chat_client.responses import ResponseStore

__all__ = ["CallFailedError", "ChatClient", "ChatReply", "ChatRequest", "Clock", "Endpoint", "ResponseStore"]
