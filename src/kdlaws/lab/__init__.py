"""Makes runs. The only wing that imports torch."""

from transformers.utils import logging

logging.disable_progress_bar()
