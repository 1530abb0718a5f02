"""Every sample file goes through HTTP with the right answer."""

from pathlib import Path

import httpx
import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
RECORDS = {
    "reviews.csv": (123, 4),
    "feedback_export.csv": (52, 1),
    "support_tickets.json": (85, 3),
    "app_reviews.jsonl": (63, 2),
    "survey_comments.txt": (43, 0),
}


@pytest.mark.parametrize("name", sorted(RECORDS))
async def test_a_sample_is_analysed_and_its_flaws_rejected(client: httpx.AsyncClient, name: str) -> None:
    response = await client.post("/process", files={"file": (name, (SAMPLES / name).read_bytes())})
    received, rejected = RECORDS[name]
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["records"] == {"received": received, "analyzed": received - rejected, "rejected": rejected}
    assert len(answer["results"]) == received - rejected
    assert answer["stored"] is True


async def test_the_broken_sample_says_where(client: httpx.AsyncClient) -> None:
    response = await client.post("/process", files={"file": ("broken.json", (SAMPLES / "broken.json").read_bytes())})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_json")
    assert "line 4, column 23" in response.json()["details"]
