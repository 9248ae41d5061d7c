"""Who may be assigned to an experiment. Light: part of the deployed policy."""

from pydantic import BaseModel, ConfigDict, Field, field_serializer


class Person(BaseModel):
    """What eligibility may look at: known before the exposure, and not moved by it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: str = Field(min_length=1)
    locale: str | None = None
    language: str | None = None
    days_since_joined: int | None = Field(default=None, ge=0)


class Eligibility(BaseModel):
    """Who may be assigned. Empty lists allow everybody; what is not known is not eligible."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    locales: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    min_days_since_joined: int = Field(default=0, ge=0)
    excluded_users: frozenset[str] = frozenset()

    @field_serializer("excluded_users", when_used="json")
    def _sorted(self, users: frozenset[str]) -> list[str]:
        return sorted(users)  # a set has another order in every process, and a key must not

    def reason_against(self, person: Person) -> str | None:
        """Why this person is not eligible, or None."""
        if person.user_id in self.excluded_users:
            return "excluded by name"
        if self.locales and person.locale not in self.locales:
            return f"locale {person.locale!r} is not in the experiment"
        if self.languages and person.language not in self.languages:
            return f"language {person.language!r} is not in the experiment"
        joined = person.days_since_joined
        if self.min_days_since_joined and (joined is None or joined < self.min_days_since_joined):
            return f"joined {joined} days ago, at least {self.min_days_since_joined} are asked for"
        return None
