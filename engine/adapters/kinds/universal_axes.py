"""The axes of an encoder whose settings name none: twenty directions that differ among texts of all sorts."""

from __future__ import annotations

from typing import Final

from engine.settings.config import Axis

UNIVERSAL_AXES: Final = (
    Axis("people", "This is about people, their families and friends, and how they get along with each other."),
    Axis("body", "This is about the body, health and illness, doctors and medicine."),
    Axis("food", "This is about food and drink, cooking, and eating a meal."),
    Axis("home", "This is about the house, its rooms and furniture, and everyday life at home."),
    Axis("place", "This is about a place, a city or a country, and how to travel there."),
    Axis("time", "This is about when something happens: a date, an hour, a schedule or a deadline."),
    Axis("money", "This is about money, prices, trade, companies and the economy."),
    Axis("work", "This is about a job, an employer, colleagues and getting a task done at the office."),
    Axis("law", "This is about laws and rights, courts, crime and punishment."),
    Axis("politics", "This is about government, elections, politicians and how a state is run."),
    Axis("technology", "This is about computers, software, machines and how they are built and repaired."),
    Axis("science", "This is about research, experiments, mathematics and the laws of physics."),
    Axis("nature", "This is about animals and plants, forests, oceans and the weather."),
    Axis("art", "This is about music, painting, films, books and other works of art."),
    Axis("sport", "This is about sport and games, players, teams and winning a match."),
    Axis("past", "This is about history, about what happened long ago and how people lived then."),
    Axis("joy", "I am happy and grateful, this is wonderful and I love it."),
    Axis("distress", "I am sad and afraid, this is terrible and it makes me angry."),
    Axis("question", "Could you tell me the answer to my question, please?"),
    Axis("instruction", "Follow these steps in this order: first do this, and then do that."),
)
"""Subjects first, then feelings, then the purpose of a text."""
