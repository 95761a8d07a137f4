"""The words that Exchange's schema allows: properties, versions, names of folders, operations."""

from __future__ import annotations

from typing import Final

FIELD_URIS: Final = """
    folder: FolderId ParentFolderId DisplayName UnreadCount TotalCount ChildFolderCount FolderClass
    SearchParameters ManagedFolderInformation PermissionSet EffectiveRights SharingEffectiveRights
    DistinguishedFolderId PolicyTag ArchiveTag ReplicaList item: ItemId ParentFolderId ItemClass MimeContent
    Attachments Subject DateTimeReceived Size Categories HasAttachments Importance InReplyTo
    InternetMessageHeaders IsAssociated IsDraft IsFromMe IsResend IsSubmitted IsUnmodified DateTimeSent
    DateTimeCreated Body ResponseObjects Sensitivity ReminderDueBy ReminderIsSet ReminderNextTime
    ReminderMinutesBeforeStart DisplayTo DisplayCc DisplayBcc Culture EffectiveRights LastModifiedName
    LastModifiedTime ConversationId UniqueBody Flag StoreEntryId InstanceKey NormalizedBody
    EntityExtractionResult PolicyTag ArchiveTag RetentionDate Preview PredictedActionReasons IsClutter
    RightsManagementLicenseData BlockStatus HasBlockedImages WebClientReadFormQueryString
    WebClientEditFormQueryString TextBody IconIndex MimeContentUTF8 Mentions MentionedMe MentionsPreview
    MentionsEx Hashtags AppliedHashtags AppliedHashtagsPreview Likes LikesPreview PendingSocialActivityTagIds
    AtAllMention CanDelete InferenceClassification FirstBody message: ConversationIndex ConversationTopic
    InternetMessageId IsRead IsResponseRequested IsReadReceiptRequested IsDeliveryReceiptRequested ReceivedBy
    ReceivedRepresenting References ReplyTo From Sender ToRecipients CcRecipients BccRecipients
    ApprovalRequestData VotingInformation ReminderMessageData PublishedCalendarItemIcs
    PublishedCalendarItemName MessageSafety sharingMessage: SharingMessageAction meeting:
    AssociatedCalendarItemId IsDelegated IsOutOfDate HasBeenProcessed ResponseType ProposedStart ProposedEnd
    DoNotForwardMeeting meetingRequest: MeetingRequestType IntendedFreeBusyStatus ChangeHighlights calendar:
    Start End OriginalStart StartWallClock EndWallClock StartTimeZoneId EndTimeZoneId IsAllDayEvent
    LegacyFreeBusyStatus Location EnhancedLocation When IsMeeting IsCancelled IsRecurring
    MeetingRequestWasSent IsResponseRequested CalendarItemType MyResponseType Organizer RequiredAttendees
    OptionalAttendees Resources ConflictingMeetingCount AdjacentMeetingCount ConflictingMeetings
    AdjacentMeetings InboxReminders Duration TimeZone AppointmentReplyTime AppointmentSequenceNumber
    AppointmentState Recurrence FirstOccurrence LastOccurrence ModifiedOccurrences DeletedOccurrences
    MeetingTimeZone ConferenceType AllowNewTimeProposal IsOnlineMeeting MeetingWorkspaceUrl NetShowUrl UID
    RecurrenceId DateTimeStamp StartTimeZone EndTimeZone JoinOnlineMeetingUrl OnlineMeetingSettings
    IsOrganizer CalendarActivityData DoNotForwardMeeting task: ActualWork AssignedTime BillingInformation
    ChangeCount Companies CompleteDate Contacts DelegationState Delegator DueDate IsAssignmentEditable
    IsComplete IsRecurring IsTeamTask Mileage Owner PercentComplete Recurrence StartDate Status
    StatusDescription TotalWork contacts: Alias AssistantName Birthday BusinessHomePage Children Companies
    CompanyName CompleteName ContactSource Culture Department DisplayName DirectoryId DirectReports
    EmailAddresses AbchEmailAddresses FileAs FileAsMapping Generation GivenName ImAddresses Initials JobTitle
    Manager ManagerMailbox MiddleName Mileage MSExchangeCertificate Nickname Notes OfficeLocation PhoneNumbers
    PhoneticFullName PhoneticFirstName PhoneticLastName Photo PhysicalAddresses PostalAddressIndex Profession
    SpouseName Surname WeddingAnniversary UserSMIMECertificate HasPicture AccountName IsAutoUpdateDisabled
    IsMessengerEnabled Comment ContactShortId ContactType CreatedBy Gender IsHidden ObjectId PassportId
    IsPrivate SourceId TrustLevel Urls Cid SkypeAuthCertificate SkypeContext SkypeId XboxLiveTag
    SkypeRelationship YomiNickname InviteFree HidePresenceAndProfile IsPendingOutbound SupportGroupFeeds
    UserTileHash UnifiedInbox Mris Wlid AbchContactId NotInBirthdayCalendar ShellContactType ImMri
    PresenceTrustLevel OtherMri ProfileLastChanged MobileIMEnabled PartnerNetworkProfilePhotoUrl
    PartnerNetworkThumbnailPhotoUrl PersonId ConversationGuid distributionlist: Members postitem: PostedTime
    conversation: ConversationId ConversationTopic UniqueRecipients GlobalUniqueRecipients UniqueUnreadSenders
    GlobalUniqueUnreadSenders UniqueSenders GlobalUniqueSenders LastDeliveryTime GlobalLastDeliveryTime
    Categories GlobalCategories FlagStatus GlobalFlagStatus HasAttachments GlobalHasAttachments HasIrm
    GlobalHasIrm MessageCount GlobalMessageCount UnreadCount GlobalUnreadCount Size GlobalSize ItemClasses
    GlobalItemClasses Importance GlobalImportance ItemIds GlobalItemIds LastModifiedTime InstanceKey Preview
    IconIndex GlobalIconIndex DraftItemIds HasClutter MentionedMe GlobalMentionedMe AtAllMention
    GlobalAtAllMention person: FullName GivenName Surname PhoneNumber SMSNumber EmailAddress Alias Department
    LinkedInProfileLink Skills ProfessionalBiography ManagementChain DirectReports Peers TeamSize CurrentJob
    Birthday Hometown CurrentLocation CompanyProfile Office Headline MutualConnections Title MutualManager
    Insights UserProfilePicture persona: PersonaId PersonaType GivenName CompanyName Surname DisplayName
    EmailAddress FileAs HomeCity CreationTime RelevanceScore RankingWeight WorkCity PersonaObjectStatus
    FileAsId DisplayNamePrefix YomiCompanyName YomiFirstName YomiLastName Title EmailAddresses PhoneNumber
    ImAddress ImAddresses ImAddresses2 ImAddresses3 FolderIds Attributions DisplayNames Initials FileAses
    FileAsIds DisplayNamePrefixes GivenNames MiddleNames Surnames Generations Nicknames YomiCompanyNames
    YomiFirstNames YomiLastNames BusinessPhoneNumbers BusinessPhoneNumbers2 HomePhones HomePhones2
    MobilePhones MobilePhones2 AssistantPhoneNumbers CallbackPhones CarPhones HomeFaxes OrganizationMainPhones
    OtherFaxes OtherTelephones OtherPhones2 Pagers RadioPhones TelexNumbers WorkFaxes Emails1 Emails2 Emails3
    BusinessHomePages School PersonalHomePages OfficeLocations BusinessAddresses HomeAddresses OtherAddresses
    Titles Departments CompanyNames Managers AssistantNames Professions SpouseNames Hobbies
    WeddingAnniversaries Birthdays Children Locations ExtendedProperties PostalAddress Bodies IsFavorite
    InlineLinks ItemLinkIds HasActiveDeals IsBusinessContact AttributedHasActiveDeals
    AttributedIsBusinessContact SourceMailboxGuids LastContactedDate ExternalDirectoryObjectId MapiEntryId
    MapiEmailAddress MapiAddressType MapiSearchKey MapiTransmittableDisplayName MapiSendRichInfo rolemember:
    MemberType MemberId DisplayName network: TokenRefreshLastCompleted TokenRefreshLastAttempted SyncEnabled
    RejectedOffers SessionHandle RefreshTokenExpiry2 RefreshToken2 PsaLastChanged Offers LastWelcomeContact
    LastVersionSaved DomainTag FirstAuthErrorDates ErrorOffers ContactSyncSuccess ContactSyncError
    ClientToken2 ClientToken ClientPublishSecret UserEmail AutoLinkSuccess AutoLinkError IsDefault Settings
    ProfileUrl UserTileUrl DomainId DisplayName AccountName SourceEntryID abchperson: FavoriteOrder PersonId
    ExchangePersonIdGuid AntiLinkInfo RelevanceOrder1 RelevanceOrder2 ContactHandles Categories booking:
    ServiceIds StaffIds StaffInitials CustomerName CustomerEmail CustomerPhone CustomerId insight: InsightId
    Type StartTimeUtc EndTimeUtc Status Version ApplicationsIds Text SuggestedActions AppContexts
"""
"""Properties: each word with a colon begins a group, and is followed by its properties."""

DICTIONARY_URIS: Final = """
    item:InternetMessageHeader contacts:ImAddress contacts:PhysicalAddress:Street
    contacts:PhysicalAddress:City contacts:PhysicalAddress:State contacts:PhysicalAddress:CountryOrRegion
    contacts:PhysicalAddress:PostalCode contacts:PhoneNumber contacts:EmailAddress
    distributionlist:Members:Member
"""
"""Properties that have an index."""

VERSIONS: Final = """
    Exchange2007 Exchange2007_SP1 Exchange2009 Exchange2010 Exchange2010_SP1 Exchange2010_SP2 Exchange2012
    Exchange2013 Exchange2013_SP1 Exchange2015 Exchange2016 V2015_10_05 V2016_01_06 V2016_04_13 V2016_07_13
    V2016_10_10 V2017_01_07 V2017_04_14 V2017_07_11
"""
"""What a client can ask for in RequestServerVersion."""

DISTINGUISHED_FOLDERS: Final = """
    calendar contacts deleteditems drafts inbox journal notes outbox sentitems tasks msgfolderroot
    publicfoldersroot root junkemail searchfolders voicemail recoverableitemsroot recoverableitemsdeletions
    recoverableitemsversions recoverableitemspurges recoverableitemsdiscoveryholds archiveroot
    archivemsgfolderroot archivedeleteditems archiveinbox archiverecoverableitemsroot
    archiverecoverableitemsdeletions archiverecoverableitemsversions archiverecoverableitemspurges
    archiverecoverableitemsdiscoveryholds syncissues conflicts localfailures serverfailures recipientcache
    quickcontacts conversationhistory adminauditlogs todosearch mycontacts directory imcontactlist
    peopleconnect favorites mecontact personmetadata teamspaceactivity teamspacemessaging teamspaceworkitems
    scheduled orionnotes tagitems alltaggeditems externalcontacts teamchat teamchathistory yammerroot
    yammerinbound yammeroutbound yammerfeeds onedriveroot onedriverecylebin onedrivesystem onedrivevolume
    important starred archive
"""
"""Folders that every mailbox can have, under names that do not depend on its language."""

PROPERTY_TYPES: Final = """
    ApplicationTime ApplicationTimeArray Binary BinaryArray Boolean CLSID CLSIDArray Currency CurrencyArray
    Double DoubleArray Error Float FloatArray Integer IntegerArray Long LongArray Null Object ObjectArray
    Short ShortArray SystemTime SystemTimeArray String StringArray
"""
"""Types of extended properties."""

PROPERTY_SETS: Final = """
    Meeting Appointment Common PublicStrings Address InternetHeaders CalendarAssistant UnifiedMessaging Task
    Sharing
"""
"""Sets of named extended properties."""

OPERATIONS: Final = """
    GetFolder UploadItems ExportItems CreateFolder FindFolder DeleteFolder EmptyFolder MoveFolder CopyFolder
    UpdateFolder CreateFolderPath GetItem CreateItem UpdateItem UpdateItemInRecoverableItems DeleteItem
    MoveItem CopyItem ArchiveItem SendItem FindItem FindConversation PerformInstantSearch
    EndInstantSearchSession ApplyConversationAction FindPeople FindTags AddTag HideTag GetPersona
    CreateAttachment DeleteAttachment GetAttachment GetClientAccessToken GetFocusedOtherOverrides
    CreateOrUpdateFocusedOtherOverride DeleteFocusedOtherOverride ResolveNames GetPasswordExpirationDate
    GetMailTips PlayOnPhone GetPhoneCallInformation DisconnectPhoneCall ExpandDL GetServerTimeZones
    CreateManagedFolder Subscribe Unsubscribe GetEvents GetStreamingEvents SendNotification
    SendNotificationResult SyncFolderHierarchy SyncFolderItems GetUserAvailabilityRequest
    GetUserOofSettingsRequest SetUserOofSettingsRequest ConvertId GetDelegate AddDelegate RemoveDelegate
    UpdateDelegate GetSharingMetadata RefreshSharingFolder GetSharingFolder CreateUserConfiguration
    DeleteUserConfiguration GetUserConfiguration GetSpecificUserConfiguration UpdateUserConfiguration
    SetTeamMailbox UnpinTeamMailbox GetRoomLists GetRooms GetReminders PerformReminderAction
    GetServiceConfiguration FindMessageTrackingReport GetMessageTrackingReport GetInboxRules UpdateInboxRules
    FindMailboxStatisticsByKeywords GetSearchableMailboxes SearchMailboxes GetDiscoverySearchConfiguration
    GetHoldOnMailboxes SetHoldOnMailboxes GetNonIndexableItemStatistics GetNonIndexableItemDetails
    MarkAllItemsAsRead GetConversationItems GetOMEConfiguration SetOMEConfiguration GetAppManifests
    GetAppMarketplaceUrl MarkAsJunk ReportMessage InstallApp UninstallApp DisableApp AddNewImContactToGroup
    AddNewTelUriContactToGroup AddImContactToGroup RemoveImContactFromGroup AddImGroup
    AddDistributionGroupToImList GetImItemList GetImItems RemoveContactFromImList
    RemoveDistributionGroupFromImList RemoveImGroup SetImGroup SetImListMigrationCompleted
    GetUserRetentionPolicyTags GetUserPhoto GetMeetingSpace CreateMeetingSpace UpdateMeetingSpace
    FindMeetingSpaceByJoinUrl DeleteMeetingSpace GetMeetingInstanceRequest CreateMeetingInstanceRequest
    UpdateMeetingInstanceRequest DeleteMeetingInstanceRequest SetUserPhoto RegisterConsent
    FindAvailableMeetingTimes FindMeetingTimeCandidates StartSearchSession GetSearchSuggestions
    DeleteSearchSuggestion ExecuteSearch EndSearchSession GetLastPrivateCatalogUpdate GetPrivateCatalogAddIns
"""
"""Requests that the schema knows; the simulator answers only some of them."""
