"""The Kubernetes objects, once: written as kustomize's files and as a Helm chart."""
