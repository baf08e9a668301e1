"""Test the connection to the Hugging Face hub."""

PATIENCE = 5.0  # seconds


def reachable() -> bool:
    """Return True if the Hugging Face hub answers within `PATIENCE`; False if HF_HUB_OFFLINE is set.

    Call it before other calls to the hub: some of those try again for 23 s.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # knows the user's proxies

    try:
        return not get_session().head(constants.ENDPOINT, timeout=PATIENCE).is_server_error
    except Exception:  # its class depends on the version of the hub library
        return False
