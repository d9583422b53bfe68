# Settings of pint, Cloudflare's linter for Prometheus rules, for these files: pint --config alerts/pint.hcl lint alerts/rules
# They have not been tried here: pint is not part of Debian.

parser {
  relaxed = []
}

checks {
  disabled = [
    # Counters that a range sees for the first time above 0 are compared with "unless … offset": on purpose.
    "promql/counter",
    # What a group of ranks or clusters is matched by is written out, though some sides have no more labels.
    "promql/vector_matching",
    # Windows are minutes, scrapes seconds; a single server's interval is not known to the files.
    "promql/rate",
  ]
}

rule {
  match { kind = "alerting" }
  # Who receives it, and what to read.
  label "severity" {
    severity = "bug"
    value    = "critical|warning|none"
    required = true
  }
  annotation "summary" {
    severity = "bug"
    required = true
  }
  annotation "runbook_url" {
    severity = "bug"
    value    = "alerts/runbooks/Esper.+"
    required = true
  }
  annotation "dashboard_url" {
    severity = "bug"
    value    = "/d/esper-.+"
    required = true
  }
}

rule {
  match { kind = "recording" }
  # The level is kept by every aggregation: clusters must not fall together.
  aggregate ".+" {
    severity = "bug"
    keep     = ["cluster"]
  }
}
