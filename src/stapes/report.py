"""The pages under their former name."""

from stapes.clip_page import PAGE_FILE as PAGE_FILE
from stapes.clip_page import render_explanation as render_explanation
from stapes.clip_page import write_explanation as write_explanation
from stapes.pages import render_report as render_report
from stapes.pages import shown_recordings as shown_recordings
