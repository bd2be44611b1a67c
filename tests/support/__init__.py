"""What tests share: films to send, analyses to report, and other people's validators."""
