"""What simulated people write about."""

from __future__ import annotations

from typing import Final

PEOPLE: Final = (
    ("Ada Brandt", "ada.brandt"),
    ("Björn Ångström", "bjorn.angstrom"),
    ("Chen Wei", "chen.wei"),
    ("Dolores O'Hara", "dolores.ohara"),
    ("Émile Lefèvre", "emile.lefevre"),
    ("Fatima al-Zahra", "fatima.zahra"),
    ("Grzegorz Żak", "grzegorz.zak"),
    ("Hannah (Claims Desk)", "claims.desk"),
    ("Ines, Broker", "ines"),
    ("Juan Muñoz", "juan.munoz"),
    ("noreply", "noreply"),
    ("山田 太郎", "taro.yamada"),
)
DOMAINS: Final = ("broker.example", "underwriter.example", "reinsurer.example", "post.example", "agency.example")
TOPICS: Final = (
    "Claim {number}: water damage",
    "Renewal of policy {number}",
    "Quote request {number}",
    "Missing documents for {number}",
    "Invoice {number} is overdue",
    "Endorsement {number}, please confirm",
    "Rückfrage zu Vorgang {number}",
    "Bordereau {number}",
    "Change of address, contract {number}",
    "Complaint about {number}",
)
SENTENCES: Final = (
    "Thank you for your message.",
    "Please find the documents attached.",
    "The insured has confirmed the date of loss.",
    "We have not received the signed slip yet.",
    "Could you let us have your comments by Friday?",
    "The surveyor visited the premises and reports damage to the roof.",
    "Our reference has changed; please use the new one in all correspondence.",
    "The premium is due at the end of the month.",
    "I have copied our accounts team.",
    "As discussed on the phone, the limit goes up to 2,500,000.",
    "Kind regards from the claims desk.",
    "We regret the delay in answering.",
)
ACCENTED: Final = (
    "Für Rückfragen stehen wir Ihnen jederzeit zur Verfügung.",
    "Le dossier a été clôturé à la fin de l'été.",
    "El año pasado la póliza cambió de número.",
)
HOSTILE_SUBJECTS: Final = (
    "control \x00 \x0b \x1f characters",
    "a noncharacter \uffff and \ufffe in the middle",
    "emoji 🌊🏚️👩‍💻 and a flag 🇪🇺",
    "right to left: \u202eelif.exe\u202c שלום עולם",
    "<script>alert('x')</script> & ]]> \"quoted\"",
    "../../etc/passwd",
    "=?utf-8?Q?looks_like_an_encoded_word?=",
    "tabs\tand\tmore",
    "very" + " long" * 600 + " subject",
    "",
)
"""Subjects that have broken programs."""
