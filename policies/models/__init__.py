"""What an operator configures, as tables. One file per subject; import from here."""

from policies.models.access import ApiKey
from policies.models.catalog import Deployment, Model, Provider
from policies.models.changes import ChangeEvent
from policies.models.management_tokens import ManagementToken
from policies.models.policy import Policy, PolicyDraft, PolicyVersion, PublicationRequest
from policies.models.rate_limits import RateLimit, RateWindow
from policies.models.router import RouterSetting, RouterTable
from policies.models.sign_in import SignInTries
from policies.models.tenancy import Project, Tenant

__all__ = [
    "ApiKey",
    "ChangeEvent",
    "Deployment",
    "ManagementToken",
    "Model",
    "Policy",
    "PolicyDraft",
    "PolicyVersion",
    "Project",
    "Provider",
    "PublicationRequest",
    "RateLimit",
    "RateWindow",
    "RouterSetting",
    "RouterTable",
    "SignInTries",
    "Tenant",
]
