"""The part of a GitHub webhook payload that this package looks at. Everything else is ignored."""

from pydantic import BaseModel

__all__ = ["Delivery"]


class _Repository(BaseModel):
    full_name: str


class _Organization(BaseModel):
    login: str


class Delivery(BaseModel):
    """A delivery of any type."""

    repository: _Repository | None = None
    organization: _Organization | None = None

    @property
    def place(self) -> str:
        """The repository it is about, else its organization, else GitHub as such."""
        if self.repository is not None:
            return self.repository.full_name
        return self.organization.login if self.organization is not None else "github"
