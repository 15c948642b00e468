"""The senders that Ductile knows: how each signs, what it wants to be answered, and what to enter where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_STANDARD = "{header:webhook-id}.{header:webhook-timestamp}.{body}"
_DOT = "{part:t=}.{body}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The keys of an endpoint for one kind of sender.

    `headers` to `dedupe` are written as in the configuration; `separator` is the character itself. `status` is what
    the sender counts as success, `empty` whether the answer has no body, `refusal` the status for a wrong signature.
    `enter` says in a line what to do at the sender, `docs` is its documentation.
    """

    headers: tuple[str, ...]
    signed: str = "{body}"
    prefix: str = ""
    separator: str | None = None
    format: str = "hex"
    secret_encoding: str = "text"
    dedupe: tuple[str, ...] = ()
    status: int = 202
    empty: bool = False
    refusal: int = 403
    handshake: str | None = None
    senders: tuple[str, ...]
    enter: str
    docs: str


PRESETS: Mapping[str, Preset] = MappingProxyType({
    "airtable": Preset(
        headers=("X-Airtable-Content-MAC",), prefix="hmac-sha256=", secret_encoding="base64", status=204,
        senders=("Airtable",),
        enter="create the webhook by API with notificationUrl; the secret is macSecretBase64 of the answer",
        docs="https://airtable.com/developers/web/api/webhooks-overview"),
    "asana": Preset(
        headers=("X-Hook-Signature",), status=200, handshake="asana", senders=("Asana",),
        enter="create the webhook by API; the secret is X-Hook-Secret of that call's answer",
        docs="https://developers.asana.com/docs/webhooks-guide"),
    "bitbucket": Preset(
        headers=("X-Hub-Signature",), prefix="sha256=", dedupe=("X-Request-UUID", "X-Request-Id"),
        senders=("Bitbucket Cloud", "Bitbucket Data Center", "Snyk"),
        enter="Repository settings, Webhooks: URL and Secret",
        docs="https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/"),
    "box": Preset(
        headers=("BOX-SIGNATURE-PRIMARY", "BOX-SIGNATURE-SECONDARY"), signed="{body}{header:BOX-DELIVERY-TIMESTAMP}",
        format="base64", dedupe=("json:id",), senders=("Box",),
        enter="Developer Console, Webhooks, Manage signature keys: the primary key; as a list also the secondary one",
        docs="https://developer.box.com/guides/webhooks/v2/signatures-v2/"),
    "buildkite": Preset(
        headers=("X-Buildkite-Signature",), signed="{part:timestamp=}.{body}", prefix="signature=", separator=",",
        senders=("Buildkite",),
        enter="Notification Services, Webhook: choose HMAC signature; the secret is the token",
        docs="https://buildkite.com/docs/apis/webhooks"),
    "cal.com": Preset(
        headers=("X-Cal-Signature-256",), senders=("Cal.com",),
        enter="Settings, Developer, Webhooks: Subscriber URL and Secret",
        docs="https://cal.com/docs/core-features/webhooks"),
    "calendly": Preset(
        headers=("Calendly-Webhook-Signature",), signed=_DOT, prefix="v1=", separator=",", senders=("Calendly",),
        enter="create the subscription by API with a signing_key of your own",
        docs="https://developer.calendly.com/api-docs/ZG9jOjM2MzE2MDM4-webhook-signatures"),
    "chatwoot": Preset(
        headers=("X-Chatwoot-Signature",), signed="{header:X-Chatwoot-Timestamp}.{body}", prefix="sha256=",
        dedupe=("X-Chatwoot-Delivery",), senders=("Chatwoot",),
        enter="Settings, Integrations, Webhooks: the URL; the secret is shown there",
        docs="https://www.chatwoot.com/docs/product/features/webhooks"),
    "circleci": Preset(
        headers=("circleci-signature",), prefix="v1=", separator=",", dedupe=("json:id",), senders=("CircleCI",),
        enter="Project Settings, Webhooks: Receiver URL and Secret token",
        docs="https://circleci.com/docs/webhooks/"),
    "cloudflare-stream": Preset(
        headers=("Webhook-Signature",), signed="{part:time=}.{body}", prefix="sig1=", separator=",",
        dedupe=("json:uid",), senders=("Cloudflare Stream",),
        enter="set notificationUrl by API (PUT stream/webhook); the secret is in the answer",
        docs="https://developers.cloudflare.com/stream/manage-video-library/using-webhooks/"),
    "crisp": Preset(
        headers=("X-Crisp-Signature",), signed="[{header:X-Crisp-Request-Timestamp};{body}]", senders=("Crisp",),
        enter="the plugin's Web Hooks: the URL; the secret is the signing secret shown there",
        docs="https://docs.crisp.chat/guides/web-hooks/"),
    "customerio": Preset(
        headers=("X-CIO-Signature",), signed="v0:{header:X-CIO-Timestamp}:{body}", dedupe=("json:event_id",),
        senders=("Customer.io",),
        enter="Data & Integrations, Reporting Webhooks: the URL; the secret is the Signing Key",
        docs="https://docs.customer.io/journeys/webhooks/"),
    "discourse": Preset(
        headers=("X-Discourse-Event-Signature",), prefix="sha256=", dedupe=("X-Discourse-Event-Id",),
        senders=("Discourse",),
        enter="Admin, API, Webhooks: Payload URL and a Secret of 12 characters or more",
        docs="https://meta.discourse.org/t/configure-webhooks-that-trigger-on-discourse-events/49045"),
    "docusign": Preset(
        headers=("X-DocuSign-Signature-1", "X-DocuSign-Signature-2", "X-DocuSign-Signature-3"), format="base64",
        status=200, senders=("DocuSign Connect",),
        enter="Connect, Connect Keys: add a key; tick Include HMAC Signature at the configuration",
        docs="https://developers.docusign.com/platform/webhooks/connect/hmac/"),
    "dropbox": Preset(
        headers=("X-Dropbox-Signature",), handshake="dropbox", senders=("Dropbox",),
        enter="App Console, Webhooks: the URI; the secret is the app secret",
        docs="https://www.dropbox.com/developers/reference/webhooks"),
    "elevenlabs": Preset(
        headers=("ElevenLabs-Signature",), signed=_DOT, prefix="v0=", separator=",", status=200,
        senders=("ElevenLabs",),
        enter="Settings, Webhooks: HMAC, callback URL; the secret is shown once",
        docs="https://elevenlabs.io/docs/product-guides/administration/webhooks"),
    "forgejo": Preset(
        headers=("X-Forgejo-Signature",), dedupe=("X-Forgejo-Delivery",), senders=("Forgejo", "Codeberg"),
        enter="Settings, Webhooks: Target URL, POST, content type application/json, Secret",
        docs="https://forgejo.org/docs/latest/user/webhooks/"),
    "front": Preset(
        headers=("X-Front-Signature",), signed="{header:X-Front-Request-Timestamp}:{body}", format="base64",
        handshake="front", senders=("Front (application webhooks)",),
        enter="Developers, your app, Features, Webhooks: the URL; the secret is the app's",
        docs="https://dev.frontapp.com/docs/webhooks-1"),
    "ghost": Preset(
        headers=("X-Ghost-Signature",), signed="{body}{part:t=}", prefix="sha256=", separator=",", senders=("Ghost",),
        enter="Settings, Integrations, a custom integration, Add webhook: Target URL and Secret",
        docs="https://ghost.org/docs/webhooks/"),
    "gitea": Preset(
        headers=("X-Gitea-Signature",), dedupe=("X-Gitea-Delivery",), senders=("Gitea",),
        enter="Settings, Webhooks: Target URL, POST, content type application/json, Secret",
        docs="https://docs.gitea.com/usage/webhooks"),
    "github": Preset(
        headers=("X-Hub-Signature-256",), prefix="sha256=", dedupe=("X-GitHub-Delivery",),
        senders=("GitHub", "your own scripts"),
        enter="Settings, Webhooks: Payload URL, content type application/json, Secret",
        docs="https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"),
    "gocardless": Preset(
        headers=("Webhook-Signature",), dedupe=("json:events[].id",), senders=("GoCardless",),
        enter="Developers, Create, Webhook endpoint: the URL; the secret is shown there",
        docs="https://developer.gocardless.com/api-reference/#appendix-webhooks"),
    "gogs": Preset(
        headers=("X-Gogs-Signature",), dedupe=("X-Gogs-Delivery",), senders=("Gogs",),
        enter="Settings, Webhooks: Payload URL, content type application/json, Secret",
        docs="https://gogs.io/"),
    "grafana": Preset(
        headers=("X-Grafana-Alerting-Signature",), senders=("Grafana alerting",),
        enter="Contact point, Webhook: URL, HMAC Signature: Secret; leave the timestamp header empty",
        docs="https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/"
             "integrations/webhook-notifier/"),
    "grafana-ts": Preset(
        headers=("X-Grafana-Alerting-Signature",), signed="{header:X-Grafana-Alerting-Timestamp}:{body}",
        senders=("Grafana alerting with a timestamp",),
        enter="Contact point, Webhook: URL, HMAC Signature: Secret, timestamp header X-Grafana-Alerting-Timestamp",
        docs="https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/"
             "integrations/webhook-notifier/"),
    "heroku": Preset(
        headers=("Heroku-Webhook-Hmac-SHA256",), format="base64", dedupe=("json:id",), senders=("Heroku",),
        enter="heroku webhooks:add -u URL; the secret is the option -s, or the one that it prints",
        docs="https://devcenter.heroku.com/articles/app-webhooks"),
    "hubspot": Preset(
        headers=("X-HubSpot-Signature-v3",), signed="POST{url}{body}{header:X-HubSpot-Request-Timestamp}",
        format="base64", dedupe=("json:[].eventId",), senders=("HubSpot",),
        enter="your app, Webhooks: Target URL, the same as `url`; the secret is the app's client secret",
        docs="https://developers.hubspot.com/docs/api/webhooks/validating-requests"),
    "intuit": Preset(
        headers=("intuit-signature",), format="base64", status=200, senders=("QuickBooks (Intuit)",),
        enter="your app, Webhooks: Endpoint URL; the secret is the verifier token",
        docs="https://developer.intuit.com/app/developer/qbo/docs/develop/webhooks"),
    "jira": Preset(
        headers=("X-Hub-Signature",), prefix="sha256=", dedupe=("X-Atlassian-Webhook-Identifier",),
        senders=("Jira Cloud",),
        enter="System, WebHooks: URL and Secret",
        docs="https://developer.atlassian.com/cloud/jira/platform/webhooks/"),
    "klaviyo": Preset(
        headers=("Klaviyo-Signature",), signed="{body}{header:Klaviyo-Timestamp}", senders=("Klaviyo",),
        enter="create the system webhook by API with endpoint_url and a secret_key of your own",
        docs="https://developers.klaviyo.com/en/docs/working_with_system_webhooks"),
    "lemonsqueezy": Preset(
        headers=("X-Signature",), status=200, senders=("Lemon Squeezy",),
        enter="Settings, Webhooks: Callback URL and Signing secret (6 to 40 characters)",
        docs="https://docs.lemonsqueezy.com/help/webhooks"),
    "line": Preset(
        headers=("X-Line-Signature",), format="base64", dedupe=("json:events[].webhookEventId",), status=200,
        senders=("LINE",),
        enter="Messaging API: Webhook URL, Use webhook; the secret is the channel secret",
        docs="https://developers.line.biz/en/docs/messaging-api/receiving-messages/"),
    "linear": Preset(
        headers=("Linear-Signature",), dedupe=("Linear-Delivery",), status=200, senders=("Linear",),
        enter="Settings, API, Webhooks: the URL; the secret is the signing secret shown there",
        docs="https://developers.linear.app/docs/graphql/webhooks"),
    "linkedin": Preset(
        headers=("X-LI-Signature",), signed="hmacsha256={body}", handshake="linkedin", senders=("LinkedIn",),
        enter="your app, Webhooks: the URL; the secret is the app's client secret",
        docs="https://learn.microsoft.com/en-us/linkedin/shared/api-guide/webhook-validation"),
    "meta": Preset(
        headers=("X-Hub-Signature-256",), prefix="sha256=", status=200, handshake="meta",
        senders=("Facebook", "Instagram", "Messenger", "WhatsApp"),
        enter="your app, Webhooks: Callback URL and Verify token (verify_token); the secret is the app secret",
        docs="https://developers.facebook.com/docs/graph-api/webhooks/getting-started"),
    "miniflux": Preset(
        headers=("X-Miniflux-Signature",), senders=("Miniflux",),
        enter="Settings, Integrations, Webhook: the URL; the secret is shown after saving",
        docs="https://miniflux.app/docs/webhooks.html"),
    "msteams": Preset(
        headers=("Authorization",), prefix="HMAC ", format="base64", secret_encoding="base64", dedupe=("json:id",),
        status=200, senders=("Microsoft Teams outgoing webhook",),
        enter="Manage team, Apps, Create an outgoing webhook: Callback URL; the secret is the security token",
        docs="https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/"
             "add-outgoing-webhook"),
    "mux": Preset(
        headers=("Mux-Signature",), signed=_DOT, prefix="v1=", separator=",", dedupe=("json:id",), senders=("Mux",),
        enter="Settings, Webhooks: the URL; the secret is the signing secret",
        docs="https://docs.mux.com/guides/listen-for-webhooks"),
    "nextcloud-talk": Preset(
        headers=("X-Nextcloud-Talk-Signature",), signed="{header:X-Nextcloud-Talk-Random}{body}",
        dedupe=("X-Nextcloud-Talk-Random",), senders=("Nextcloud Talk bots",),
        enter="occ talk:bot:install NAME SECRET URL, with a secret of 40 to 128 characters",
        docs="https://nextcloud-talk.readthedocs.io/en/latest/bots/"),
    "notion": Preset(
        headers=("X-Notion-Signature",), prefix="sha256=", dedupe=("json:id",), handshake="notion",
        senders=("Notion",),
        enter="your integration, Webhooks: the URL, then Verify with the verification token that Ductile logs; it is"
              " also the secret",
        docs="https://developers.notion.com/reference/webhooks"),
    "oura": Preset(
        headers=("x-oura-signature",), signed="{header:x-oura-timestamp}{body}", handshake="oura", senders=("Oura",),
        enter="create the subscription by API with callback_url and verification_token (verify_token); the secret is"
              " the client secret",
        docs="https://cloud.ouraring.com/v2/docs"),
    "paddle": Preset(
        headers=("Paddle-Signature",), signed="{part:ts=}:{body}", prefix="h1=", separator=";",
        dedupe=("json:event_id",), status=200, senders=("Paddle Billing",),
        enter="Developer Tools, Notifications: the URL; the secret is the endpoint's secret key",
        docs="https://developer.paddle.com/webhooks/signature-verification"),
    "pagerduty": Preset(
        headers=("X-PagerDuty-Signature",), prefix="v1=", separator=",", dedupe=("json:event.id",),
        senders=("PagerDuty V3",),
        enter="Integrations, Generic Webhooks (v3): Webhook URL; the secret is shown once",
        docs="https://developer.pagerduty.com/docs/verifying-webhook-signatures"),
    "polar": Preset(
        headers=("webhook-signature",), signed=_STANDARD, prefix="v1,", separator=" ", format="base64",
        dedupe=("webhook-id",), senders=("Polar",),
        enter="Settings, Webhooks: the URL and Secret, which is used as it stands",
        docs="https://docs.polar.sh/integrate/webhooks/endpoints"),
    "razorpay": Preset(
        headers=("X-Razorpay-Signature",), dedupe=("x-razorpay-event-id",), senders=("Razorpay",),
        enter="Account & Settings, Webhooks: Webhook URL and Secret",
        docs="https://razorpay.com/docs/webhooks/validate-test/"),
    "recurly": Preset(
        headers=("recurly-signature",), signed="{part:#1}.{body}", separator=",", senders=("Recurly",),
        enter="Integrations, Webhooks: Endpoint URL; the secret is the endpoint's secret key",
        docs="https://docs.recurly.com/recurly-subscriptions/docs/webhooks"),
    "sanity": Preset(
        headers=("sanity-webhook-signature",), signed=_DOT, prefix="v1=", separator=",", format="base64url",
        dedupe=("idempotency-key",), senders=("Sanity",),
        enter="API, Webhooks: URL, HTTP method POST, Secret",
        docs="https://www.sanity.io/docs/webhooks"),
    "sentry": Preset(
        headers=("Sentry-Hook-Signature",), senders=("Sentry",),
        enter="Settings, Custom Integrations: Webhook URL; the secret is the client secret",
        docs="https://docs.sentry.io/organization/integrations/integration-platform/webhooks/"),
    "shopify": Preset(
        headers=("X-Shopify-Hmac-Sha256",), format="base64", dedupe=("X-Shopify-Webhook-Id",), status=200,
        senders=("Shopify",),
        enter="Settings, Notifications, Webhooks: URL, format JSON; the secret is shown below the list, for an app it"
              " is its client secret",
        docs="https://shopify.dev/docs/apps/build/webhooks/subscribe/https"),
    "sinch": Preset(
        headers=("x-sinch-webhook-signature",), format="base64",
        signed="{body}.{header:x-sinch-webhook-signature-nonce}.{header:x-sinch-webhook-signature-timestamp}",
        senders=("Sinch Conversation",),
        enter="your app, Webhooks: Target URL and Secret token",
        docs="https://developers.sinch.com/docs/conversation/callbacks"),
    "slack": Preset(
        headers=("X-Slack-Signature",), signed="v0:{header:X-Slack-Request-Timestamp}:{body}", prefix="v0=",
        dedupe=("json:event_id", "form:trigger_id"), status=200, empty=True, handshake="slack", senders=("Slack",),
        enter="your app, Event Subscriptions or Slash Commands: Request URL; the secret is the Signing Secret of Basic"
              " Information",
        docs="https://api.slack.com/authentication/verifying-requests-from-slack"),
    "square": Preset(
        headers=("x-square-hmacsha256-signature",), signed="{url}{body}", format="base64", dedupe=("json:event_id",),
        senders=("Square",),
        enter="your app, Webhooks, Subscriptions: Notification URL, the same as `url`; the secret is the Signature key",
        docs="https://developer.squareup.com/docs/webhooks/step3validate"),
    "squarespace": Preset(
        headers=("Squarespace-Signature",), secret_encoding="hex", dedupe=("json:id",), senders=("Squarespace",),
        enter="create the subscription by API with endpointUrl; the secret is in the answer",
        docs="https://developers.squarespace.com/commerce-apis/webhook-subscriptions-overview"),
    "standard": Preset(
        headers=("webhook-signature",), signed=_STANDARD, prefix="v1,", separator=" ", format="base64",
        secret_encoding="base64", dedupe=("webhook-id",),
        senders=("GitLab", "OpenAI", "Replicate", "Supabase Auth hooks", "any sender of Standard Webhooks"),
        enter="the URL at the sender; the secret begins with whsec_ (GitLab: generate a signing token at the hook)",
        docs="https://www.standardwebhooks.com/"),
    "stripe": Preset(
        headers=("Stripe-Signature",), signed=_DOT, prefix="v1=", separator=",", dedupe=("json:id",),
        senders=("Stripe",),
        enter="Developers, Webhooks, Add endpoint: the URL; the secret is the Signing secret, whsec_ included",
        docs="https://docs.stripe.com/webhooks"),
    "svix": Preset(
        headers=("svix-signature",), signed="{header:svix-id}.{header:svix-timestamp}.{body}", prefix="v1,",
        separator=" ", format="base64", secret_encoding="base64", dedupe=("svix-id",),
        senders=("Svix", "Clerk", "Resend"),
        enter="Webhooks, Add Endpoint: the URL; the secret is the Signing Secret, which begins with whsec_",
        docs="https://docs.svix.com/receiving/verifying-payloads/how-manual"),
    "tailscale": Preset(
        headers=("Tailscale-Webhook-Signature",), signed=_DOT, prefix="v1=", separator=",", senders=("Tailscale",),
        enter="Settings, Webhooks, Add endpoint: the URL; the secret is shown once",
        docs="https://tailscale.com/kb/1213/webhooks"),
    "todoist": Preset(
        headers=("X-Todoist-Hmac-SHA256",), format="base64", dedupe=("X-Todoist-Delivery-ID",), status=200,
        senders=("Todoist",),
        enter="App Management, Webhooks: callback URL without a port; the secret is the client secret",
        docs="https://developer.todoist.com/sync/v9/#webhooks"),
    "twitch": Preset(
        headers=("Twitch-Eventsub-Message-Signature",), prefix="sha256=",
        signed="{header:Twitch-Eventsub-Message-Id}{header:Twitch-Eventsub-Message-Timestamp}{body}",
        dedupe=("Twitch-Eventsub-Message-Id",), handshake="twitch", senders=("Twitch EventSub",),
        enter="create the subscription by API with transport.callback and a secret of 10 to 100 characters",
        docs="https://dev.twitch.tv/docs/eventsub/handling-webhook-events/"),
    "typeform": Preset(
        headers=("Typeform-Signature",), prefix="sha256=", format="base64", dedupe=("json:event_id",),
        senders=("Typeform",),
        enter="Connect, Webhooks: Endpoint and Secret",
        docs="https://www.typeform.com/developers/webhooks/secure-your-webhooks/"),
    "webflow": Preset(
        headers=("x-webflow-signature",), signed="{header:x-webflow-timestamp}:{body}", status=200,
        senders=("Webflow",),
        enter="create the webhook by API; the secret is the hook's secretKey or the app's client secret",
        docs="https://developers.webflow.com/data/docs/working-with-webhooks"),
    "woocommerce": Preset(
        headers=("X-WC-Webhook-Signature",), format="base64", handshake="woocommerce", senders=("WooCommerce",),
        enter="WooCommerce, Settings, Advanced, Webhooks: Delivery URL and Secret",
        docs="https://woocommerce.com/document/webhooks/"),
    "workos": Preset(
        headers=("WorkOS-Signature",), signed=_DOT, prefix="v1=", separator=",", dedupe=("json:id",), status=200,
        senders=("WorkOS",),
        enter="Webhooks: Endpoint URL; the secret is the Signing secret",
        docs="https://workos.com/docs/events/data-syncing/webhooks"),
    "x": Preset(
        headers=("x-twitter-webhooks-signature",), prefix="sha256=", format="base64", status=200, handshake="x-crc",
        senders=("X (Twitter)",),
        enter="register the webhook URL by API; the secret is the app's consumer secret",
        docs="https://docs.x.com/x-api/webhooks/introduction"),
    "xero": Preset(
        headers=("x-xero-signature",), format="base64", status=200, empty=True, refusal=401, senders=("Xero",),
        enter="your app, Webhooks: Delivery URL, Send 'Intent to receive'; the secret is the webhooks key",
        docs="https://developer.xero.com/documentation/guides/webhooks/overview/"),
    "zendesk": Preset(
        headers=("X-Zendesk-Webhook-Signature",), signed="{header:X-Zendesk-Webhook-Signature-Timestamp}{body}",
        format="base64", dedupe=("X-Zendesk-Webhook-Invocation-Id",), senders=("Zendesk",),
        enter="Admin Center, Webhooks: Endpoint URL, POST, JSON; the secret is shown by Reveal secret",
        docs="https://developer.zendesk.com/documentation/webhooks/verifying/"),
    "zoom": Preset(
        headers=("x-zm-signature",), signed="v0:{header:x-zm-request-timestamp}:{body}", prefix="v0=", status=200,
        handshake="zoom", senders=("Zoom",),
        enter="your app, Feature, Event Subscriptions: endpoint URL, then Validate; the secret is the Secret Token",
        docs="https://developers.zoom.us/docs/api/webhooks/"),
})
