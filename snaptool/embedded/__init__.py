"""Configurations that a backup carries inside: where they lie, how they open, how a new one is written back.

k3s and RKE2 keep theirs under `/bootstrap/…`, sealed under the server token (`k3s`); OpenShift's operators keep keys
and configurations as Secrets (`openshift`); RKE1 has a copy of its state as a Secret. `places` collects the records
while keys are passed over anyway, `found` says what opens and which configuration that gives.

Source: docs/formats/containers.md, "k3s and RKE2", "OpenShift" and "RKE1". Recovered secrets go to memory or to files
of mode 0600, never to a report.
"""
