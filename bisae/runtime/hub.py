"""Whether the Hugging Face hub answers."""

PATIENCE = 5.0  # seconds


def reachable() -> bool:
    """Whether the Hugging Face hub answers within seconds; False when HF_HUB_OFFLINE is set.

    To be asked before other calls to the hub: some of those try again for 23 s.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # knows the user's proxies

    try:
        return not get_session().head(constants.ENDPOINT, timeout=PATIENCE).is_server_error
    except Exception:  # of httpx or httpx2, by the hub library's version
        return False
